// Tables that sort by a column, and curves that tell their values under the pointer or by arrow keys.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const falls = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const key = (row) => {
        const text = row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
        const number = Number(text.replace(/,/g, ""));
        return text === "" || Number.isNaN(number) ? text : number;
      };
      const order = (a, b) => {
        const [x, y] = [key(a), key(b)];
        const both = typeof x === "number" && typeof y === "number";
        return both ? x - y : String(x).localeCompare(String(y));
      };
      const rows = [...body.rows].sort(order);
      body.append(...(falls ? rows.reverse() : rows));
    });
  });
}
for (const card of document.querySelectorAll("[data-curve]")) {
  const curve = JSON.parse(card.dataset.curve);
  const image = card.querySelector("img");
  const line = card.appendChild(document.createElement("div"));
  const tip = card.appendChild(document.createElement("output"));
  line.className = "crosshair";
  tip.className = "tip";
  line.hidden = tip.hidden = true;
  let place = -1;
  const show = (at) => {
    place = Math.max(0, Math.min(curve.x.length - 1, at));
    const share = (curve.x[place] - curve.limits[0]) / (curve.limits[1] - curve.limits[0]);
    const left = image.offsetLeft + image.clientWidth * (curve.box[0] + share * (curve.box[1] - curve.box[0]));
    line.style.left = `${left}px`;
    tip.style.left = `${Math.min(left + 8, image.offsetLeft + image.clientWidth - 140)}px`;
    const told = Object.entries(curve.series).map(([name, values]) => {
      const value = values[place];
      if (value == null) return `${name}: –`;
      return `${name}: ${curve.percent ? (value * 100).toFixed(2) + " %" : value.toPrecision(4)}`;
    });
    tip.textContent = [`${curve.step} ${curve.x[place]}`, ...told].join("\n");
    line.hidden = tip.hidden = false;
  };
  const hide = () => { line.hidden = tip.hidden = true; place = -1; };
  card.addEventListener("pointermove", (event) => {
    const share = (event.clientX - image.getBoundingClientRect().left) / image.clientWidth;
    const x = curve.limits[0] + ((share - curve.box[0]) / (curve.box[1] - curve.box[0])) * (curve.limits[1] - curve.limits[0]);
    let nearest = 0;
    curve.x.forEach((value, index) => { if (Math.abs(value - x) < Math.abs(curve.x[nearest] - x)) nearest = index; });
    show(nearest);
  });
  card.addEventListener("pointerleave", hide);
  card.addEventListener("blur", hide);
  card.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") hide();
    if (step) { event.preventDefault(); show(place + step); }
  });
}
