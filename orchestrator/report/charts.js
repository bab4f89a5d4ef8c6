// Charts, drawn when they come into view in the page's own colours, each with a legend for its section and a table.
"use strict";

const specifications = JSON.parse(document.getElementById("charts")?.textContent ?? "{}");
const SIGNS = { circle: "●", square: "■", diamond: "◆", "triangle-up": "▲", "triangle-down": "▼", cross: "✚", x: "✖",
  star: "★", pentagon: "⬟", hexagon: "⬢", "triangle-left": "◀", "triangle-right": "▶" };
const NARROW = 420;
const MOST_PRINTED = 60;
const hidden = new Map();
const widths = new Map();

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const coloured = (value) => {
  if (typeof value === "string") return value.startsWith("--") ? colour(value) : value;
  if (Array.isArray(value)) return value.map(coloured);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, below]) => [key, coloured(below)]));
};

const plain = (markup) => new DOMParser().parseFromString(markup, "text/html").body.textContent;
const shortened = (markup) => {
  const text = plain(markup);
  return text.length > 14 ? made("p", { textContent: `${text.slice(0, 13)}…` }).innerHTML : markup;
};

function axis(own, width) {
  const made = { automargin: true, gridcolor: colour("--grid"), linecolor: colour("--line"), zerolinecolor: colour("--line"),
    ...own, title: { standoff: 8, ...own.title } };
  if (width < NARROW && made.ticktext) made.ticktext = made.ticktext.map(shortened);
  return made;
}

function draw(plot) {
  const specification = specifications[plot.dataset.chart];
  const isOwn = "table" in specification;
  const away = hidden.get(plot.closest(".section-charts")) ?? new Set();
  const data = coloured(specification.data).map((trace) => (away.has(trace.name) ? { ...trace, visible: false } : trace));
  const layout = { ...coloured(specification.layout) };
  const width = plot.clientWidth;
  widths.set(plot, width);
  Object.assign(layout, {
    width, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", barmode: layout.barmode ?? "overlay",
    font: { color: colour("--ink"), family: "system-ui, sans-serif", size: 12 },
    margin: isOwn ? { l: 10, r: 12, t: 8, b: 10 } : layout.margin,
    hoverlabel: { bgcolor: colour("--band"), font: { color: colour("--ink") } },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
  });
  if (isOwn) layout.showlegend = false;
  for (const key of Object.keys(layout).filter((name) => /^[xy]axis/.test(name))) layout[key] = axis(layout[key], width);
  try {
    return Plotly.react(plot, data, layout, { displayModeBar: false });
  } catch (error) {
    plot.textContent = `This figure cannot be drawn here: ${error.message}. Its data are in the table below.`;
    return Promise.resolve();
  }
}

function fill(place) {
  if (place.childElementCount) return;
  const { columns, rows } = specifications[place.dataset.table].table;
  const cell = (text, index) => made(index ? "td" : "th", { textContent: text, ...(index ? {} : { scope: "row" }) });
  const table = made("table", { className: "sortable" },
    made("thead", {}, made("tr", {}, ...columns.map((name) => made("th", { scope: "col", textContent: name })))),
    made("tbody", {}, ...rows.map((row) => made("tr", {}, ...row.map(cell)))));
  place.append(table);
  sortable(table);
  savable(table, place.dataset.table);
}

function legend(section) {
  const place = section.querySelector(".legend");
  const away = new Set();
  hidden.set(section, away);
  const traces = [...section.querySelectorAll(".plot")].flatMap((plot) => specifications[plot.dataset.chart].data);
  const named = new Map(traces.filter((trace) => trace.showlegend).map((trace) => [trace.name, trace]));
  if (named.size < 2) return;
  for (const [name, trace] of named) {
    const sign = made("span", { textContent: SIGNS[trace.marker?.symbol] ?? "■", ariaHidden: "true" });
    sign.style.color = trace.marker?.color;
    const button = made("button", { type: "button", ariaPressed: "true" }, sign, ` ${plain(name)}`);
    button.addEventListener("click", () => {
      const isShown = away.delete(name) || !away.add(name);
      button.ariaPressed = String(isShown);
      [...widths.keys()].filter((plot) => section.contains(plot)).forEach(draw);
    });
    place.append(button);
  }
}

const plots = [...document.querySelectorAll(".plot")];
document.querySelectorAll(".section-charts").forEach(legend);
const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries)
    if (isIntersecting && target.clientWidth) {
      seen.unobserve(target);
      draw(target);
      sized.observe(target);
    }
}, { rootMargin: "800px" });
const sized = new ResizeObserver((entries) => {
  for (const { target } of entries)
    if (target.clientWidth && Math.abs(target.clientWidth - (widths.get(target) ?? 0)) > 1) draw(target);
});
for (const plot of plots) {
  const height = specifications[plot.dataset.chart].layout.height;
  if (height) plot.style.minHeight = `${height}px`;
  seen.observe(plot);
  const button = made("button", { type: "button", className: "save", textContent: "Save as SVG" });
  button.addEventListener("click", async () => {
    await draw(plot);
    const url = await Plotly.toImage(plot, { format: "svg", width: plot.clientWidth, height: plot.clientHeight });
    save(`${plot.dataset.chart}.svg`, decodeURIComponent(url.slice(url.indexOf(",") + 1)), "image/svg+xml");
  });
  const details = plot.parentElement.querySelector("details.data");
  if (details) details.append(button);
  else plot.after(button);
}
for (const place of document.querySelectorAll("[data-table]"))
  place.closest("details").addEventListener("toggle", (event) => event.target.open && fill(place));

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => [...widths.keys()].forEach(draw));
addEventListener("paper", () => {
  for (const place of document.querySelectorAll("[data-table]")) {
    const details = place.closest("details");
    if (specifications[place.dataset.table].table.rows.length > MOST_PRINTED) details.open = false;
    else if (details.open) fill(place);
  }
  plots.filter((plot) => plot.clientWidth).forEach(draw);
});
