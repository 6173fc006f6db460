"use strict";
// The drawings of the report. Lines are drawn by uPlot; the timeline is plain SVG. Every drawing has a table beside it with the same numbers.

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const PALETTE = 8;
const DASHES = [[], [8, 4], [10, 3, 2, 3], [5, 5], [14, 4], [4, 2], [12, 2, 4, 2], [6, 2]];

/** A DOM element: `h("td", {class: "n"}, "text", child, …)`. Text is always inserted as text, never as markup. */
function h(tag, attributes, ...children) {
  const svg = ["svg", "g", "rect", "line", "text", "title", "path", "pattern", "defs"].includes(tag) && !(tag === "title" && !attributes);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

/** A number as a reader wants it: four significant digits, never 1e+3 for a thousand. */
function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e7)) return value.toExponential(3);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return size >= 1000 ? Math.round(value).toLocaleString("en") : value.toPrecision(4);
}

function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (value < 60) return `${value.toFixed(value < 10 ? 2 : 1)} s`;
  const minutes = Math.floor(value / 60);
  return minutes < 60 ? `${minutes} min ${Math.round(value % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Milliseconds with a tenth, where a tenth still says something. */
function milliseconds(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return value >= 1000 ? seconds(value / 1000) : `${value.toFixed(value < 100 ? 1 : 0)} ms`;
}

/** A table from column heads `{name, number}` and rows of cells (strings or nodes). */
function table(heads, rows, caption) {
  const cell = (tag, head, content) => h(tag, { class: head.number ? "n" : null, scope: tag === "th" ? "col" : null }, content);
  return h("div", { class: "scroll", tabindex: rows.length > 12 ? "0" : null, role: "region", "aria-label": caption },
    h("table", null,
      h("thead", null, h("tr", null, heads.map((head) => cell("th", head, head.name)))),
      h("tbody", null, rows.map((row) => h("tr", null, row.map((content, k) => content instanceof HTMLTableCellElement ? content : cell("td", heads[k], content)))))));
}

/** "Show as a table", filled when opened: the plots' numbers for screen readers and for copying. */
function asTable(heads, rows, caption) {
  const details = h("details", null, h("summary", null, "Show as a table"));
  details.addEventListener("toggle", () => { if (details.open && details.children.length === 1) details.append(table(heads, rows(), caption)); });
  return details;
}

const pad = (n) => String(n).padStart(2, "0");
/** Tick labels of a time axis: dates where the day changes, hours between. Stamps are civil, so UTC is the identity. */
function stamps(_, splits, axis, space, step) {
  let day = "";
  return splits.map((split) => {
    const t = new Date(split * 1000);
    const date = t.toISOString().slice(0, 10);
    if (step >= 86400 * 28) return date.slice(0, 7);
    if (step >= 86400) return date;
    const label = `${pad(t.getUTCHours())}:${pad(t.getUTCMinutes())}` + (date !== day ? `\n${date}` : "");
    day = date;
    return label;
  });
}

const plots = [];
/**
 * Lines over one x axis, broken where a value is null. `lines`: `{label, x: [..], y: [..], color: index or css variable, dash, width, dots: points instead of a line}`; x may differ from line to line.
 * Options: `time` (x in unix seconds), `log` (y axis), `x`/`y` (axis labels), `height`.
 */
function lineChart(host, lines, options) {
  const describe = `${options.y || "value"} over ${options.x || "time"}: ${lines.map((l) => l.label).join(", ")}`;
  host.setAttribute("role", "img");
  host.setAttribute("aria-label", describe);
  const draw = () => {
    host.replaceChildren();
    const colour = (line) => css(typeof line.color === "number" ? `--c${line.color % PALETTE}` : line.color);
    const axis = { stroke: css("--soft"), grid: { stroke: css("--grid"), width: 1 }, ticks: { stroke: css("--line"), width: 1 }, font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif" };
    const stamp = (u, v) => v === null ? "" : options.time ? new Date(v * 1000).toISOString().slice(0, 16).replace("T", " ") : number(v);
    const data = uPlot.join(lines.map((line) => [line.x, line.y]));
    return new uPlot({
      width: Math.max(280, host.clientWidth), height: options.height || 320,
      tzDate: (t) => uPlot.tzDate(new Date(t * 1000), "Etc/UTC"),
      scales: { x: { time: Boolean(options.time) }, y: options.log ? { distr: 3, range: (u, low, high) => [low / 1.2, high * 1.2] } : {} },
      axes: [
        Object.assign({ label: options.x, labelSize: 18, size: options.time ? 46 : 34, space: options.time ? 80 : 60 }, axis, options.time ? { values: stamps } : {}),
        Object.assign({ label: options.y, labelSize: 20, size: 64, values: (u, ticks) => ticks.map((v) => v === null ? "" : String(+v.toPrecision(options.log ? 3 : 6))) }, axis),
      ],
      series: [{ label: options.x || "time", value: stamp }].concat(lines.map((line) => ({
        label: line.label, stroke: colour(line), width: line.dots ? 0 : line.width || 1.75, dash: line.dash,
        points: line.dots ? { show: true, size: 8, width: 0, fill: colour(line) } : { show: line.x.length === 1 }, value: (u, v) => v === null || v === undefined ? "" : number(v),
      }))),
      cursor: { points: { size: 6 } },
      legend: { markers: { fill: (u, k) => lines[k - 1]?.dots ? colour(lines[k - 1]) : null, dash: (u, k) => lines[k - 1] && (lines[k - 1].dash || []).length ? (lines[k - 1].dash[0] < 4 ? "dotted" : "dashed") : "solid" } },
    }, data, host);
  };
  const plot = { host, draw, chart: draw() };
  plots.push(plot);
  return plot;
}
function forget(host) {
  const at = plots.findIndex((plot) => plot.host === host);
  if (at >= 0) plots.splice(at, 1)[0].chart.destroy();
  host.replaceChildren();
}
addEventListener("resize", () => { for (const p of plots) p.chart.setSize({ width: Math.max(280, p.host.clientWidth), height: p.chart.height }); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { for (const p of plots) { p.chart.destroy(); p.chart = p.draw(); } });

// ---- timeline ----------------------------------------------------------------------------------------------------------------------

const PARTS = [
  { name: "queue", from: "submitted", to: "placed", text: "queue: waits for free cores" },
  { name: "start", from: "placed", to: "started", text: "start: ranks come up" },
  { name: "communicator", from: "started", to: "connected", text: "communicator: ranks find each other" },
  { name: "run", from: "connected", to: "ended", text: "run: the work itself" },
  { name: "report", from: "ended", to: "reported", text: "report: result comes back" },
];
const OVERHEAD = ["start", "communicator", "report"];
/** Seconds of one part of a task, 0 where it never got so far. */
function part(task, p) {
  const from = task.times[p.from], to = task.times[p.to];
  return Number.isFinite(from) && Number.isFinite(to) ? Math.max(0, to - from) : 0;
}
function partKey(names) {
  return h("ul", { class: "key" }, PARTS.filter((p) => names.includes(p.name)).map((p) =>
    h("li", null, h("svg", { "aria-hidden": "true" }, h("rect", { width: 15, height: 11, rx: 2, class: p.name })), p.text)));
}
function niceStep(span, count) {
  const raw = span / count, power = 10 ** Math.floor(Math.log10(raw));
  return power * [1, 2, 5, 10].find((m) => m * power >= raw);
}
/** Horizontal bars: `rows` = `{label, inside, note, title, bars: [{from, to, class}]}` or `{head}`; x in `unit`. */
function bars(host, rows, span, unit, describe) {
  const draw = () => {
    const width = Math.max(520, host.clientWidth), left = Math.min(230, width * .3), right = 92, rowHeight = 22, top = 6;
    const scale = (width - left - right) / (span || 1), height = top + rows.length * rowHeight + 26;
    const svg = h("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": describe });
    const step = niceStep(span || 1, 8), digits = Math.max(0, -Math.floor(Math.log10(step)));
    for (let t = 0; t <= span * 1.0001; t += step) {
      const x = left + t * scale;
      svg.append(h("line", { x1: x, x2: x, y1: top, y2: height - 22, class: "grid" }), h("text", { x, y: height - 8, "text-anchor": "middle", class: "soft" }, `${t.toFixed(digits)} ${unit}`));
    }
    rows.forEach((row, k) => {
      const y = top + k * rowHeight;
      if (row.head) { svg.append(h("line", { x1: 0, x2: width, y1: y + 1, y2: y + 1, class: "rule" }), h("text", { x: 0, y: y + 16, "font-weight": 600 }, row.head)); return; }
      const g = h("g", null, h("title", { class: "t" }, row.title));
      g.append(h("text", { x: row.inside ? 14 : 0, y: y + 15, "font-weight": row.inside ? null : 600 }, row.label.length > 30 ? `${row.label.slice(0, 29)}…` : row.label));
      for (const bar of row.bars) {
        const wide = (bar.to - bar.from) * scale;
        // A part of a millisecond in a run of minutes is still worth a hairline.
        if (bar.to > bar.from) g.append(h("rect", { x: left + bar.from * scale, y: y + 4, width: Math.max(wide, .8), height: 14, rx: wide > 6 ? 2 : 0, class: bar.class }));
      }
      const end = Math.max(0, ...row.bars.map((bar) => bar.to));
      g.append(h("text", { x: left + end * scale + 6, y: y + 15, class: "soft" }, row.note));
      svg.append(g);
    });
    host.replaceChildren(svg);
  };
  draw();
  addEventListener("resize", draw);
}
