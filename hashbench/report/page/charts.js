// Draws the charts of the page, and tells what is under the pointer or, by the arrow keys, under the focus.
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [360, 270, 48, 12, 26, 40]; // of a panel, in units of its viewBox

const { namespaceURI } = document.querySelector("svg"); // of the thumbnails, which are on every page
const svg = (name, attributes = {}, ...children) => {
  const made = document.createElementNS(namespaceURI, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};
const short = (number) => String(Number(number.toPrecision(4)));

// Returns a function from values to coordinates, with its ticks.
const scale = (values, from, to, { log = false, range = null, ticks = null, whole = false } = {}) => {
  let [least, most] = range ?? [Math.min(...values), Math.max(...values)];
  if (least === most) [least, most] = log ? [least / 2, most * 2] : [least - 0.5, most + 0.5];
  else if (log) [least, most] = [least / 1.15, most * 1.15];
  else if (!range) [least, most] = [least - (most - least) * 0.04, most + (most - least) * 0.04];
  const map = log ? Math.log : Number;
  const at = (value) => from + ((map(value) - map(least)) / (map(most) - map(least))) * (to - from);
  return [at, ticks ?? (log ? logTicks(least, most) : linearTicks(least, most, whole))];
};
const linearTicks = (least, most, whole) => {
  const rough = (most - least) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(whole ? 1 : 0, [1, 2, 5, 10].find((factor) => factor * power >= rough) * power);
  const first = Math.ceil(least / step);
  return Array.from({ length: Math.floor(most / step) - first + 1 }, (_, at) => Number(((first + at) * step).toPrecision(12)));
};
const logTicks = (least, most) => {
  const found = [];
  const factors = most > 30 * least ? [1] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(least)); 10 ** power <= most; power++)
    found.push(...factors.map((factor) => Number((factor * 10 ** power).toPrecision(3))).filter((tick) => tick >= least && tick <= most));
  return found;
};

// A line is broken where a value is missing.
const path = (points) =>
  points.map(([x, y], at) => (y === null ? "" : `${at && points[at - 1][1] !== null ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`)).join("");

const drawPanel = (panel, lines) => {
  const known = panel.lines.flatMap((line) => [...line.y, ...(line.least ?? []), ...(line.most ?? [])]).filter((y) => y !== null);
  const [x, xTicks] = scale(panel.lines.flatMap((line) => line.x), LEFT, WIDTH - RIGHT, { log: panel.log, range: panel.x, ticks: panel.ticks, whole: panel.whole });
  const [y, yTicks] = scale(known.length ? known : [0, 1], HEIGHT - BOTTOM, TOP, { range: panel.y });
  const text = (content, attributes) => svg("text", attributes, content);
  const drawn = svg("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, tabindex: 0, role: "img",
    "aria-label": `${panel.title} ${panel.yLabel} against ${panel.xLabel}. Arrow keys: left and right along a line, up and down to another.`,
  });
  drawn.append(text(panel.title, { x: LEFT, y: 14, class: "title" }));
  for (const tick of yTicks)
    drawn.append(
      svg("path", { class: "grid", d: `M${LEFT} ${y(tick)}H${WIDTH - RIGHT}` }),
      text(short(tick), { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }),
    );
  for (const tick of xTicks)
    drawn.append(
      svg("path", { class: "grid", d: `M${x(tick)} ${TOP}V${HEIGHT - BOTTOM}` }),
      text(short(tick), { x: x(tick), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }),
    );
  drawn.append(
    text(panel.xLabel, { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle" }),
    text(panel.yLabel, { x: 12, y: (TOP + HEIGHT - BOTTOM) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(TOP + HEIGHT - BOTTOM) / 2})` }),
  );
  const groups = panel.lines.map((line) => {
    const { colour, dashes } = lines[line.line];
    const style = `--c: var(--c${colour})`;
    const points = line.x.map((value, at) => [x(value), line.y[at] === null ? null : y(line.y[at])]);
    const group = svg("g", { style });
    if (line.least && !line.least.includes(null)) {
      const edge = (values) => line.x.map((value, at) => `${x(value).toFixed(1)} ${y(values[at]).toFixed(1)}`);
      group.append(svg("path", { class: "band", style: "fill: var(--c)", d: `M${edge(line.most).join("L")}L${edge(line.least).reverse().join("L")}Z` }));
    }
    group.append(svg("path", { d: path(points), style: "stroke: var(--c)", "stroke-dasharray": dashes }));
    if (line.x.length <= 8)
      points.forEach(([cx, cy], at) => {
        if (cy === null) return;
        const fill = line.hollow?.[at] ? "var(--back)" : "var(--c)";
        group.append(svg("circle", { cx, cy, r: 3.2, style: `fill: ${fill}; stroke: var(--c)` }));
      });
    drawn.append(group);
    return { group, points, line };
  });
  return [drawn, groups];
};

const describe = (panel, line, name, at) => {
  const spread = line.least && line.least[at] !== null && `${short(line.least[at])} to ${short(line.most[at])}`;
  const more = [spread, line.rank && `rank ${line.rank[at].toLocaleString("en")}`, line.bits && `${line.bits[at]} bits`, line.hollow?.[at] && "codes COLLAPSED"];
  return [name, `${panel.xLabel} ${short(line.x[at])}`, `${panel.yLabel} ${short(line.y[at])}`, ...more.filter(Boolean)].join("\n");
};

// Makes a panel answer the pointer and the arrow keys.
const explore = (box, drawn, groups, panel, lines, isShown) => {
  const tip = element("div", { class: "tip", role: "status", hidden: "" });
  const dot = svg("circle", { r: 4.5, style: "fill: var(--back); stroke-width: 2; pointer-events: none" });
  box.append(tip);
  let current = null; // [index of the line, index of the point]
  const shownGroups = () => groups.map((_, at) => at).filter((at) => isShown(groups[at].line));
  const show = (next) => {
    current = next;
    groups.forEach(({ group }, at) => group.classList.toggle("on", at === next?.[0]));
    box.classList.toggle("busy", next !== null);
    tip.hidden = next === null;
    dot.remove();
    if (next === null) return;
    const { points, line } = groups[next[0]];
    const [x, y] = points[next[1]];
    dot.setAttribute("cx", x);
    dot.setAttribute("cy", y);
    dot.style.stroke = `var(--c${lines[line.line].colour})`;
    drawn.append(dot);
    tip.textContent = describe(panel, line, lines[line.line].name, next[1]);
    const [right, low] = [x > WIDTH / 2, y > HEIGHT / 2];
    Object.assign(tip.style, {
      left: right ? "auto" : `${(100 * (x + 10)) / WIDTH}%`, right: right ? `${100 - (100 * (x - 10)) / WIDTH}%` : "auto",
      top: low ? "auto" : `${(100 * y) / HEIGHT}%`, bottom: low ? `${100 - (100 * y) / HEIGHT}%` : "auto",
    });
  };
  const nearest = (x, y, among, weight = 1) => {
    let best = null;
    for (const at of among)
      groups[at].points.forEach(([px, py], point) => {
        const distance = (px - x) ** 2 + weight * (py - y) ** 2;
        if (py !== null && (!best || distance < best[0])) best = [distance, [at, point]];
      });
    return best && best[1];
  };
  drawn.addEventListener("pointermove", (event) => {
    const place = drawn.getBoundingClientRect();
    show(nearest(((event.clientX - place.left) / place.width) * WIDTH, ((event.clientY - place.top) / place.height) * HEIGHT, shownGroups()));
  });
  drawn.addEventListener("pointerleave", () => show(null));
  drawn.addEventListener("blur", () => show(null));
  drawn.addEventListener("focus", () => {
    if (drawn.matches(":focus-visible")) show(nearest(LEFT, TOP, shownGroups()));
  });
  drawn.addEventListener("keydown", (event) => {
    const among = shownGroups();
    if (event.key === "Escape") show(null);
    if (!event.key.startsWith("Arrow") || !among.length) return;
    event.preventDefault();
    const [at, point] = current ?? nearest(LEFT, TOP, among);
    const { points } = groups[at];
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      const next = Math.max(0, Math.min(points.length - 1, point + (event.key === "ArrowLeft" ? -1 : 1) * (event.shiftKey ? 10 : 1)));
      show(points[next][1] === null ? current : [at, next]);
    } else {
      const other = among[(among.indexOf(at) + (event.key === "ArrowUp" ? among.length - 1 : 1)) % among.length];
      show(nearest(points[point][0], 0, [other], 0));
    }
  });
  return () => show(null);
};

const legend = (lines, off, changed) => {
  const buttons = lines.map((line, at) => {
    const sample = svg("svg", { width: 30, height: 10, "aria-hidden": "true" });
    sample.append(svg("path", { d: "M0 5H30", style: `fill: none; stroke: var(--c${line.colour}); stroke-width: 2`, "stroke-dasharray": line.dashes }));
    const button = element("button", { type: "button", "aria-pressed": "true" }, sample, line.name);
    button.addEventListener("click", () => {
      if (!off.delete(at)) off.add(at);
      button.setAttribute("aria-pressed", !off.has(at));
      changed();
    });
    return button;
  });
  return buttons;
};

const setUpChart = (figure) => {
  const chart = data.charts[figure.dataset.chart];
  const off = new Set(); // lines that the legend hides
  const updates = [];
  const isShown = (line) => !off.has(line.line) && anyVisible(line.runs);
  const update = () => updates.forEach((one) => one());
  const buttons = legend(chart.lines, off, update);
  const grid = element("div", { class: "panels" });
  for (const panel of chart.panels) {
    const box = element("div", { class: "plot" });
    grid.append(box);
    updates.push(() => (box.hidden = !panel.lines.some((line) => anyVisible(line.runs))));
    const draw = () => {
      watcher.unobserve(box);
      drawers.delete(box);
      const [drawn, groups] = drawPanel(panel, chart.lines);
      box.append(drawn);
      const clear = explore(box, drawn, groups, panel, chart.lines, isShown);
      const refresh = () => {
        clear();
        groups.forEach(({ group, line }) => group.setAttribute("display", isShown(line) ? "inline" : "none"));
      };
      updates.push(refresh);
      refresh();
    };
    drawers.set(box, draw);
    watcher.observe(box);
  }
  updates.push(() =>
    buttons.forEach((button, at) => {
      button.hidden = !chart.panels.some((panel) => panel.lines.some((line) => line.line === at && anyVisible(line.runs)));
    }),
  );
  const holder = figure.closest("[data-of-chart]");
  if (holder) updates.push(() => (holder.hidden = buttons.every((button) => button.hidden)));
  figure.prepend(element("div", { class: "legend" }, ...buttons), grid);
  onFilter.push(update);
  update();
};

// Panels are drawn when they come into sight, or all before the page is printed.
const drawers = new Map();
const watcher = new IntersectionObserver(
  (entries) => entries.forEach((entry) => entry.isIntersecting && drawers.get(entry.target)?.()),
  { rootMargin: "400px" },
);
addEventListener("beforeprint", () => [...drawers.values()].forEach((draw) => draw()));
if (data) document.querySelectorAll("[data-chart]").forEach(setUpChart);
