// Filters, sorts, and shows the details of runs. All text goes through textContent, so that none of it is markup.
const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};
const data = JSON.parse(document.getElementById("data")?.textContent ?? "null");
const numbers = (text) => (text ? text.split(" ").map(Number) : []);
const form = document.getElementById("filter");

// Sorting: numbers as numbers, the largest first; what has no number stays last in either order.
const value = (row, column) => {
  const text = row.cells[column].textContent.trim();
  const number = parseFloat(text.replace("−", "-").replace(/,/g, ""));
  return Number.isNaN(number) ? text : number;
};
const compare = (a, b) =>
  typeof a === typeof b ? (a > b) - (a < b) : (typeof a === "string") - (typeof b === "string");
const detailsOf = new Map(); // the row with the details of a run, by the row of the run

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => {
    const button = element("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const body = table.tBodies[0];
      const rows = [...body.rows].filter((row) => !row.classList.contains("details"));
      const keys = new Map(rows.map((row) => [row, value(row, column)]));
      const numeric = [...keys.values()].some((key) => typeof key === "number");
      const before = head.getAttribute("aria-sort");
      const order = before ? (before === "ascending" ? "descending" : "ascending") : numeric ? "descending" : "ascending";
      const sign = order === "ascending" ? 1 : -1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      rows.sort((a, b) => {
        const [x, y] = [keys.get(a), keys.get(b)];
        return numeric && typeof x !== typeof y ? compare(x, y) : sign * compare(x, y);
      });
      body.append(...rows.flatMap((row) => (detailsOf.has(row) ? [row, detailsOf.get(row)] : [row])));
    });
  });
}

// What a link leads to must not be below the filter.
const coverTop = (height) => (document.documentElement.style.scrollPaddingTop = `${height}px`);

// A box whose content is wider says so.
const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const box = target.closest(".scroll");
    if (box) box.classList.toggle("more", box.scrollWidth > box.clientWidth + 1);
    else coverTop(getComputedStyle(form).position === "sticky" ? form.offsetHeight + 8 : 0);
  }
});
document.querySelectorAll(".scroll, .scroll > table, #filter").forEach((one) => sizes.observe(one));

// Details of a run, made when it is pressed.
const definitions = (values) =>
  element("dl", {}, ...Object.entries(values).flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)]));
const part = (title, values) =>
  Object.keys(values).length ? [element("section", {}, element("h4", {}, title), definitions(values))] : [];

const copyButton = (code) => {
  const button = element("button", { type: "button" }, "Copy");
  button.addEventListener("click", () => {
    getSelection().selectAllChildren(code); // stays selected if the browser refuses to copy
    button.textContent = document.execCommand("copy") ? "Copied" : "Press Ctrl+C";
  });
  return button;
};

const panel = (run) => {
  const words = run.command.split(/ (?=--)/); // a line breaks between options
  const code = element("code", {}, ...words.flatMap((word, at) => [at ? " " : "", element("span", {}, word)]));
  const configuration = Object.fromEntries(run.settings.map((at) => data.settings[at]));
  return element(
    "div",
    { class: "panel" },
    element("h4", {}, run.id),
    ...run.collapsed.map((reason) => element("p", { class: "loud" }, `COLLAPSED: ${reason}`)),
    element("div", { class: "command" }, code, copyButton(code)),
    element(
      "div",
      { class: "columns" },
      ...part("Changes of the recipe", run.changes),
      ...part("Metrics (any order of ties)", run.metrics),
      ...part("Codes and cost", run.codes),
      ...part("Run", run.run),
    ),
    element("details", {}, element("summary", {}, "Configuration"), definitions(configuration)),
  );
};

const toggle = (row, open) => {
  const button = row.querySelector("button");
  open ??= button.getAttribute("aria-expanded") !== "true";
  button.setAttribute("aria-expanded", open);
  detailsOf.get(row)?.remove();
  detailsOf.delete(row);
  if (!open) return;
  const run = data.runs[row.dataset.runs];
  const details = element("tr", { class: "details" }, element("td", { colspan: row.cells.length }, panel(run)));
  detailsOf.set(row, details);
  row.after(details);
};

const runRows = [...document.querySelectorAll("#runs-body tr")];
for (const row of runRows) {
  const button = element("button", { type: "button", "aria-expanded": "false" }, ...row.cells[0].childNodes);
  row.cells[0].append(button);
  button.addEventListener("click", () => toggle(row));
}
const openTarget = () => {
  const row = document.getElementById(location.hash.slice(1));
  if (runRows.includes(row)) {
    if (row.hidden) showAll();
    toggle(row, true);
    row.querySelector("button").focus();
  }
};

// Filter: without a checked value, a facet admits all.
const visible = new Set(); // indices of the runs that the filter admits
const anyVisible = (runs) => runs.some((run) => visible.has(run));
const onFilter = []; // functions of the charts, called after a change
const filtered = [...document.querySelectorAll("[data-runs]")].map((one) => [one, numbers(one.dataset.runs)]);
const tables = [...document.querySelectorAll("[data-table]")].map((box) => ({
  box,
  rows: [...box.querySelectorAll("tr")],
  cells: [...box.querySelectorAll("[data-cell]")].map((cell) => ({
    cell,
    row: cell.parentElement,
    column: cell.cellIndex,
    runs: numbers(cell.dataset.cell),
  })),
}));

const filterTable = ({ box, rows, cells }) => {
  const [shownRows, shownColumns] = [new Map(), new Map()];
  for (const { cell, row, column, runs } of cells) {
    const any = anyVisible(runs);
    cell.classList.toggle("off", !any);
    shownRows.set(row, shownRows.get(row) || any);
    shownColumns.set(column, shownColumns.get(column) || any);
  }
  for (const row of rows) {
    row.hidden = shownRows.get(row) === false;
    for (const cell of row.cells) cell.hidden = shownColumns.get(cell.cellIndex) === false;
  }
  box.hidden = shownRows.size > 0 && ![...shownRows.values()].some(Boolean);
};

const applyFilter = () => {
  const wanted = data.facets.map((facet) =>
    [...form.querySelectorAll(":checked")].filter((box) => box.name === facet).map((box) => box.value),
  );
  visible.clear();
  data.runs.forEach((run, at) => {
    if (wanted.every((values, facet) => !values.length || values.includes(run.facets[facet]))) visible.add(at);
  });
  for (const [one, runs] of filtered) one.hidden = !anyVisible(runs);
  for (const [row, details] of detailsOf) details.hidden = row.hidden;
  tables.forEach(filterTable);
  onFilter.forEach((update) => update());
  form.querySelector("output").textContent = `${visible.size} of ${data.runs.length} runs shown`;
};

const showAll = () => {
  form.reset();
  applyFilter();
};

if (form) {
  form.hidden = false;
  form.addEventListener("change", applyFilter);
  form.querySelector("button").addEventListener("click", showAll);
  form.addEventListener("submit", (event) => event.preventDefault());
  applyFilter(); // a browser may restore checked boxes
  addEventListener("load", openTarget);
  addEventListener("hashchange", openTarget);
}
