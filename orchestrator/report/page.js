// Contents, tables that sort and can be saved, filters of the recipes and the images, and printing with all parts open.
"use strict";

const made = (name, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
};

function save(name, content, type) {
  const link = made("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function number(cell) {
  const text = (cell.dataset.value || cell.textContent.trim()).replace(/[,%]/g, "").replace("−", "-").trim();
  return text === "" ? NaN : Number(text);
}

function sortable(table) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = made("button", { type: "button", textContent: head.textContent });
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const falls = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => {
        const cell = row.cells[column];
        return { row, text: cell.textContent.trim(), value: number(cell), missing: cell.textContent.trim() === "–" };
      });
      const numeric = rows.every((each) => each.missing || !Number.isNaN(each.value));
      rows.sort((a, b) => {
        if (a.missing || b.missing) return a.missing - b.missing;
        const order = numeric ? a.value - b.value : a.text.localeCompare(b.text, "en", { numeric: true });
        return falls ? -order : order;
      });
      body.append(...rows.map((each) => each.row));
    });
  });
}

function savable(table, name) {
  const button = made("button", { type: "button", className: "save", textContent: "Save as CSV" });
  button.addEventListener("click", () => {
    const quoted = (cell) => `"${cell.textContent.trim().replace(/"/g, '""')}"`;
    const lines = [...table.rows].map((row) => [...row.cells].map(quoted).join(","));
    save(`${name}.csv`, lines.join("\n") + "\n", "text/csv");
  });
  table.parentElement.after(button);
}

for (const table of document.querySelectorAll("main table")) {
  if (table.classList.contains("sortable")) sortable(table);
  savable(table, table.closest("section").querySelector("h2").textContent);
}

const contents = made("ul");
for (const head of document.querySelectorAll("h2[id]"))
  contents.append(made("li", {}, made("a", { href: `#${head.id}`, textContent: head.textContent })));
document.getElementById("contents").append(contents);

document.getElementById("differences")?.addEventListener("change", (event) =>
  document.querySelector("table.configuration").classList.toggle("only-differences", event.target.checked));

const filter = document.getElementById("filter");
if (filter) {
  const items = [...document.querySelectorAll(".gallery li")];
  const apply = () => {
    const words = filter.querySelector("input").value.toLowerCase().split(/\s+/);
    const kind = filter.querySelector("select").value;
    for (const item of items) {
      const text = item.textContent.toLowerCase();
      item.hidden = (kind && item.dataset.kind !== kind) || !words.every((word) => text.includes(word));
    }
    filter.querySelector("output").textContent =
      `${items.filter((item) => !item.hidden).length} of ${items.length} images`;
  };
  filter.addEventListener("input", apply);
  filter.addEventListener("submit", (event) => event.preventDefault());
  apply();
}

const paper = { opened: [] };
addEventListener("beforeprint", () => {
  document.documentElement.classList.add("paper");
  paper.opened = [...document.querySelectorAll("details:not([open])")];
  for (const part of paper.opened) part.open = true;
  dispatchEvent(new Event("paper"));
});
addEventListener("afterprint", () => {
  document.documentElement.classList.remove("paper");
  for (const part of paper.opened) part.open = false;
  dispatchEvent(new Event("paper"));
});
