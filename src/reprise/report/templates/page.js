// Sorts, filters, legends and charts. Without it the page still has every table, verdict and command.
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

// --- tables ----------------------------------------------------------------------------------------------------------
const numberIn = (text) => {
  const found = text.replace(/,/g, "").match(/^\s*\[?([+-]?\d*\.?\d+(e[+-]?\d+)?)/i);
  return found ? parseFloat(found[1]) : NaN;
};
const order = (a, b) => {
  const [x, y] = [numberIn(a), numberIn(b)];
  if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
  if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
  return a.localeCompare(b, "en", { numeric: true });
};
function sortBy(header) {
  const table = header.closest("table");
  const body = table.tBodies[0];
  const direction = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  $$("th[aria-sort]", table).forEach((other) => other.removeAttribute("aria-sort"));
  header.setAttribute("aria-sort", direction);
  const text = (row) => row.cells[header.cellIndex].textContent.trim();
  const rows = [...body.rows].sort((a, b) => order(text(a), text(b)));
  body.append(...(direction === "ascending" ? rows : rows.reverse()));
}
document.addEventListener("click", (event) => {
  const header = event.target.closest("table.data thead th");
  if (header && event.target.closest("button")) sortBy(header);
});

// --- filters ---------------------------------------------------------------------------------------------------------
const filters = document.getElementById("filters");
function filter() {
  const wanted = Object.fromEntries(new FormData(filters));
  const rows = $$("#all-claims tbody tr");
  const scales = Object.keys(rows[0]?.dataset ?? {}).filter((name) => name !== "paper");
  for (const row of rows) {
    const judged = (wanted.scale ? [wanted.scale] : scales).map((scale) => row.dataset[scale]);
    row.hidden = Boolean(
      (wanted.paper && row.dataset.paper !== wanted.paper) ||
      (wanted.verdict && !judged.includes(wanted.verdict)) ||
      (wanted.text && !row.textContent.toLowerCase().includes(wanted.text.toLowerCase()))
    );
  }
  const shown = rows.filter((row) => !row.hidden).length;
  filters.querySelector("output").textContent = `${shown} of ${rows.length} claims`;
}
filters.addEventListener("input", filter);
filters.addEventListener("submit", (event) => event.preventDefault());
filter();

// --- links into what is folded ---------------------------------------------------------------------------------------
function unfold() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let box = target; box; box = box.parentElement) if (box.tagName === "DETAILS") box.open = true;
  target.scrollIntoView();
}
addEventListener("hashchange", unfold);
if (location.hash) unfold();

// --- charts ----------------------------------------------------------------------------------------------------------
const charts = JSON.parse(document.getElementById("charts").textContent);
const views = new Map(); // from a figure's id to the views of its panels
const font = getComputedStyle(document.body).fontFamily;
const quiet = { labelColor: "var(--muted)", titleColor: "var(--text)", domainColor: "var(--muted)", tickColor: "var(--rule)",
  gridColor: "var(--rule)", labelFontSize: 11, titleFontSize: 12, titleFontWeight: 400, titlePadding: 8, labelOverlap: true };
const look = (width) => ({
  background: null, font, view: { stroke: null }, axis: quiet, axisX: { tickCount: width < 380 ? 4 : 6 },
  axisY: { labelLimit: 170, tickCount: 5 }, line: { strokeJoin: "round" },
});
const tooltip = { disableDefaultStyle: true, formatTooltip: (value, clean) => {
  const lines = Object.entries(value).map(([key, text]) => `<tr><td class="key">${clean(key)}</td><td>${clean(text)}</td></tr>`);
  return `<table>${lines.join("")}</table>`;
} };
async function draw(plot) {
  if (plot.dataset.drawn) return;
  plot.dataset.drawn = "asked";
  const spec = { ...charts[plot.dataset.chart][plot.dataset.panel], width: "container", autosize: { type: "fit-x", contains: "padding" } };
  const options = { actions: false, renderer: "svg", mode: "vega-lite", config: look(plot.clientWidth), tooltip };
  const { view } = await window.vegaEmbed(plot, spec, options);
  view.logLevel(1); // errors only from now on: a panel whose lines are all hidden has no extent, and need not say so
  views.set(plot.dataset.chart, [...(views.get(plot.dataset.chart) ?? []), view]);
  plot.dataset.drawn = "yes";
}
const near = new IntersectionObserver((seen) => seen.filter((one) => one.isIntersecting).forEach((one) => draw(one.target)), { rootMargin: "600px" });
const plots = $$(".plot");
plots.forEach((plot) => near.observe(plot));
const whenIdle = window.requestIdleCallback ?? ((task) => setTimeout(task, 50));
const drawRest = () => { // so that a print has them all
  const next = plots.find((plot) => !plot.dataset.drawn);
  if (next) draw(next).then(() => whenIdle(drawRest));
};
addEventListener("load", () => whenIdle(drawRest));

document.addEventListener("click", (event) => {
  const button = event.target.closest(".legend button");
  if (!button) return;
  button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") === "false"));
  const figure = button.closest("figure");
  const hidden = $$('.legend button[aria-pressed="false"]', figure).map((one) => one.dataset.series);
  for (const view of views.get(figure.id) ?? []) view.signal("hidden", hidden).run();
});

// --- the numbers of a chart ------------------------------------------------------------------------------------------
const columns = { series: "Line", row: "Row", x: "At", shown: "Mean and interval", seeds: "Seeds" };
function numbers(box) {
  const figure = box.closest("figure");
  const rows = $$(".plot", figure).flatMap((plot) =>
    charts[figure.id][plot.dataset.panel].data.values.map((row) => ({ panel: plot.dataset.title, ...row })));
  const kept = Object.keys(columns).filter((name) => name in rows[0]);
  const table = document.createElement("table");
  table.className = "data";
  const head = table.createTHead().insertRow();
  for (const name of ["Panel", ...kept.map((key) => columns[key])]) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.append(Object.assign(document.createElement("button"), { type: "button", textContent: name }));
    head.append(cell);
  }
  const body = table.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const name of ["panel", ...kept]) line.insertCell().textContent = row[name] ?? "";
  }
  const scroll = Object.assign(document.createElement("div"), { className: "scroll", tabIndex: 0 });
  scroll.append(table);
  box.append(scroll);
}
$$("details.numbers").forEach((box) => box.addEventListener("toggle", () => { if (!box.querySelector("table")) numbers(box); }));

// --- where the reader is ---------------------------------------------------------------------------------------------
const links = new Map($$("nav a").map((link) => [link.hash.slice(1), link]));
const here = new IntersectionObserver((seen) => seen.forEach((one) => {
  if (!one.isIntersecting) return;
  links.forEach((link) => link.removeAttribute("aria-current"));
  links.get(one.target.id)?.setAttribute("aria-current", "true");
}), { rootMargin: "0px 0px -80% 0px" });
links.forEach((_, id) => { const target = document.getElementById(id); if (target && id !== "top") here.observe(target); });
