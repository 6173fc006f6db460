// The report's sections, in reading order. Everything comes from the JSON object embedded in the page: `{record, logs}`,
// where `record` is run.json and `logs` maps a log file to the end of its text.

const { record, logs } = JSON.parse(document.getElementById("data").textContent);
const several = record.pipelines.length > 1;
const body = (id) => document.querySelector(`#${id} .body`);
const unique = (values) => [...new Set(values)];
const where = (pipeline, rest) => several ? `${pipeline} · ${rest}` : rest;
const MARKS = {
  done: ["✓ done", "good"], failed: ["✗ failed", "bad"], interrupted: ["◼ interrupted", "wait"], canceled: ["◼ canceled", "wait"],
  reused: ["↻ reused", "good"], running: ["… running", "wait"], waiting: ["… waiting", "wait"], skipped: ["– skipped", "wait"],
};
function badge(status) {
  const [text, tone] = MARKS[status] || [status, "wait"];
  return h("span", { class: `badge ${tone}` }, text);
}
const HIGHER = /(^|[ _])(nse|nnse|kge|r2|accuracy|coverage)([ _]|$)/i;
const UPPER = { mse: "MSE", mae: "MAE", rmse: "RMSE", mape: "MAPE", smape: "sMAPE", mase: "MASE", nse: "NSE", nnse: "NNSE", kge: "KGE", r2: "R²" };
const metricName = (name) => name.split(/[ _]/).map((word) => UPPER[word] || word).join(" ");
const isBaseline = (model) => /^(seasonal-naive|persistence|naive)( \(|$)/.test(model);
/** Where models forecast different windows, each has its own row of the baseline: `persistence (windows of lstm)`. */
const baselineOf = (rows, model) => rows.find((row) => isBaseline(row.model) && (!row.model.includes(" (") || row.model.endsWith(`(windows of ${model})`)));
/** A model keeps its colour and its dash in every chart. */
const MODELS = unique(record.curves.concat(record.forecasts, record.metrics).map((row) => row.model)).filter((m) => !isBaseline(m));
const colourOf = (model) => Math.max(0, MODELS.indexOf(model));

// ---- head --------------------------------------------------------------------------------------------------------------------------

function head() {
  const started = new Date(record.started_unix * 1000);
  const stamp = h("time", { datetime: started.toISOString() }, `${started.toISOString().slice(0, 19).replace("T", " ")} UTC`);
  document.getElementById("head").append(
    h("div", { class: "brand" }, "Deep RC · run report"),
    h("div", { class: "title" }, h("h1", null, record.name), badge(record.status)),
    h("div", { class: "when" }, "Started ", stamp, ` · took ${seconds(record.seconds)} · `, h("span", { class: "mono" }, record.dir)));
  const words = record.environment.command_line;
  const command = [words[0].split("/").pop(), ...words.slice(1)].map((word) => /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`).join(" ");
  if (command) document.getElementById("head").append(h("code", { class: "command", tabindex: "0" }, command));
}

function summary() {
  const failed = record.tasks.filter((task) => outcome(task) === "failed").length;
  const reused = record.stages.filter((stage) => stage.status === "reused").length;
  const tile = (name, value, more) => h("div", { class: "tile" }, h("span", { class: "name" }, name), h("b", null, value), h("span", { class: "more" }, more || " "));
  document.getElementById("summary").append(
    tile("Time", seconds(record.seconds), `${record.stages.length} stages${reused ? `, ${reused} reused` : ""}`),
    tile("Tasks", String(record.tasks.length), failed ? `✗ ${failed} failed` : "all done"),
    tile("Overhead per task", milliseconds(record.overhead_ms?.median), `median; largest ${milliseconds(record.overhead_ms?.max)}`),
    tile("First task", milliseconds(record.first_task_ms), "after the start of the run"),
    tile("First training step", milliseconds(record.first_step_ms), "after the start of the run"));
  const best = bestModel();
  if (best) document.getElementById("summary").append(tile(`Best ${metricName(best.metric)}`, number(best.value), best.model));
}

// ---- errors ------------------------------------------------------------------------------------------------------------------------

function errors() {
  for (const error of record.errors) {
    const at = [error.pipeline, error.stage && `stage ${error.stage}`, Number.isInteger(error.rank) && `rank ${error.rank}`].filter(Boolean).join(" · ");
    body("errors").append(h("div", { class: "error" }, h("b", null, `✗ ${at || "run"}`), h("p", { class: "message" }, error.message),
      error.at ? h("p", { class: "note mono" }, `--> ${error.at}`) : null,
      error.hint ? h("p", { class: "hint" }, h("b", null, "hint: "), error.hint) : null,
      error.stderr_tail ? h("details", null, h("summary", null, "Last lines of its error output"), h("pre", { tabindex: "0" }, error.stderr_tail)) : null));
  }
}

// ---- metrics -----------------------------------------------------------------------------------------------------------------------

/** Rows that may be compared: one evaluation, one target (or the mean over them). */
const groupOf = (m) => JSON.stringify([m.pipeline, m.stage, m.target]);
function titleOf(m) {
  const ofPipeline = record.metrics.filter((other) => other.pipeline === m.pipeline);
  const ofStage = ofPipeline.filter((other) => other.stage === m.stage);
  const parts = [several && m.pipeline, unique(ofPipeline.map((other) => other.stage)).length > 1 && m.stage,
    unique(ofStage.map((other) => other.target)).length > 1 && (m.target || "mean over the targets")];
  return parts.filter(Boolean).join(" · ");
}
const higherIsBetter = (metric) => HIGHER.test(metric);
const better = (metric, a, b) => higherIsBetter(metric) ? a > b : a < b;
const ownModels = (rows) => rows.filter((row) => !isBaseline(row.model) && Number.isFinite(row.value));
function bestOf(rows, metric) {
  return ownModels(rows).reduce((best, row) => !best || better(metric, row.value, best.value) ? row : best, null);
}
function bestModel() {
  const overall = record.metrics.filter((m) => !m.series);
  const first = overall.find((m) => !isBaseline(m.model));
  return first && bestOf(overall.filter((m) => m.metric === first.metric && groupOf(m) === groupOf(first)), first.metric);
}
/** "12 % better than baseline"; only for errors, where a ratio has a meaning. */
function againstBaseline(metric, value, baseline) {
  if (!baseline || !Number.isFinite(baseline.value) || !Number.isFinite(value)) return null;
  if (higherIsBetter(metric)) return `${value >= baseline.value ? "+" : "−"}${number(Math.abs(value - baseline.value))} to baseline`;
  if (baseline.value === 0) return null;
  const change = Math.round((1 - value / baseline.value) * 100);
  return change >= 0 ? `${change} % below baseline` : `${-change} % above baseline`;
}
function metricsTable(rows, pipeline) {
  const names = unique(rows.map((m) => m.metric));
  const models = unique(rows.map((m) => m.model)).sort((a, b) => isBaseline(a) - isBaseline(b));
  const heads = [{ name: "Model" }].concat(names.map((name) => ({ name: `${metricName(name)} ${higherIsBetter(name) ? "↑" : "↓"}`, number: true })));
  const view = table(heads, models.map((model) => [
    h("th", { scope: "row" }, model, isBaseline(model) ? h("span", { class: "aside" }, "baseline") : null),
    ...names.map((name) => {
      const of = rows.filter((m) => m.metric === name), mine = of.find((m) => m.model === model);
      const best = bestOf(of, name), many = ownModels(of).length > 1;
      const aside = isBaseline(model) ? null : againstBaseline(name, mine?.value, baselineOf(of, model));
      const isBest = many && best && best.model === model;
      return h("td", { class: isBest ? "n best" : "n" }, isBest ? h("span", { class: "tag" }, "best") : null, number(mine?.value), aside ? h("span", { class: "aside" }, aside) : null);
    }),
  ]), `Metrics of ${pipeline}`);
  view.querySelectorAll("tbody tr").forEach((tr, k) => { if (isBaseline(models[k])) tr.className = "baseline"; });
  return view;
}
function perSeries(rows, pipeline) {
  const names = unique(rows.map((m) => m.metric)), host = h("div");
  const select = h("select", { onchange: () => fill() }, names.map((name) => h("option", { value: name }, metricName(name))));
  const fill = () => {
    const of = rows.filter((m) => m.metric === select.value);
    const models = unique(of.map((m) => m.model)), series = unique(of.map((m) => m.series));
    const values = new Map(of.map((m) => [`${m.series}\n${m.model}`, m]));
    host.replaceChildren(table([{ name: "Series" }].concat(models.map((m) => ({ name: m, number: true }))), series.map((s) => {
      const mine = models.map((m) => values.get(`${s}\n${m}`)).filter(Boolean), best = bestOf(mine, select.value);
      return [h("th", { scope: "row" }, s), ...models.map((m) => {
        const isBest = best && best.model === m && ownModels(mine).length > 1;
        return h("td", { class: isBest ? "n best" : "n" }, isBest ? h("span", { class: "tag" }, "best") : null, number(values.get(`${s}\n${m}`)?.value));
      })];
    }), `${select.value} by series of ${pipeline}`));
  };
  fill();
  const series = unique(rows.map((m) => m.series)).length;
  return h("details", { open: series <= 12 }, h("summary", null, `By series (${series})`),
    h("div", { class: "controls" }, h("label", null, "Metric ", select)), host);
}
function metrics() {
  for (const group of unique(record.metrics.map(groupOf))) {
    const rows = record.metrics.filter((m) => groupOf(m) === group), title = titleOf(rows[0]);
    if (title) body("metrics").append(h("h3", null, title));
    const overall = rows.filter((m) => !m.series), each = rows.filter((m) => m.series);
    if (overall.length) body("metrics").append(metricsTable(overall, title));
    if (each.length) body("metrics").append(perSeries(each, title));
  }
  body("metrics").append(h("p", { class: "note" }, "↓ smaller is better, ↑ larger is better. A baseline is not trained; what does not beat it has learnt nothing useful."));
}

// ---- forecasts ---------------------------------------------------------------------------------------------------------------------

const unix = (iso) => Date.parse(/[zZ]|[+-]\d\d:?\d\d$/.test(iso) ? iso : `${iso.replace(" ", "T")}${iso.length > 10 ? "Z" : ""}`) / 1000;
/** One value per stamp, in order: where windows overlap, the forecast made last is kept. */
function line(ds, values) {
  const at = new Map(ds.map((iso, k) => [unix(iso), values[k]]));
  const x = [...at.keys()].sort((a, b) => a - b);
  return { x, y: x.map((t) => at.get(t) ?? null) };
}
function forecasts() {
  const keyOf = (f) => where(f.pipeline, f.target && f.target !== f.series && f.target !== "y" ? `${f.series} · ${f.target}` : f.series);
  const keys = unique(record.forecasts.map(keyOf));
  const models = unique(record.forecasts.map((f) => f.model));
  const host = h("div", { class: "chart" }), below = h("div");
  // A record is one window: it begins where the first forecast stands; the observations before it are there for the eye.
  const begin = (f) => f.ds[Math.max(f.yhat.findIndex((v) => v !== null), 0)];
  const windows = h("select", { onchange: () => draw() });
  const offer = () => {
    const stamps = unique(record.forecasts.filter((f) => keyOf(f) === series.value).map(begin)).sort();
    windows.replaceChildren(...stamps.map((stamp) => h("option", { value: stamp }, stamp.replace("T", " ").slice(0, 16))));
  };
  const series = h("select", { onchange: () => { offer(); draw(); } }, keys.map((key) => h("option", null, key)));
  const model = h("select", { onchange: () => draw() }, h("option", { value: "" }, "all models"), models.map((m) => h("option", null, m)));
  const draw = () => {
    const shown = record.forecasts.filter((f) => keyOf(f) === series.value && begin(f) === windows.value && (!model.value || f.model === model.value));
    forget(host);
    below.replaceChildren();
    if (!shown.length) { host.append(h("p", { class: "soft" }, "This model has no forecast of this series.")); return; }
    const lines = [Object.assign({ label: "observed", color: "--text", width: 2.25 }, line(shown[0].ds, shown[0].y))];
    const based = shown.find((f) => f.baseline && f.baseline.length);
    if (based) lines.push(Object.assign({ label: baselineOf(record.metrics.filter((m) => m.pipeline === based.pipeline), based.model)?.model.split(" (")[0] || "baseline", color: "--soft", dash: [2, 4], width: 1.5 }, line(based.ds, based.baseline)));
    for (const f of shown) lines.push(Object.assign({ label: f.model, color: colourOf(f.model), dash: DASHES[colourOf(f.model) % DASHES.length] }, line(f.ds, f.yhat)));
    lineChart(host, lines, { time: true, y: shown[0].target, height: 360 });
    const rows = () => lines[0].x.map((t, k) => [new Date(t * 1000).toISOString().slice(0, 16).replace("T", " "), ...lines.map((l) => number(l.x[k] === t ? l.y[k] : l.y[l.x.indexOf(t)]))]);
    below.append(asTable([{ name: "Time" }].concat(lines.map((l) => ({ name: l.label, number: true }))), rows, `Forecasts of ${series.value}`));
  };
  body("forecasts").append(h("div", { class: "controls" }, h("label", null, "Series ", series), h("label", null, "From ", windows), h("label", null, "Model ", model),
    h("span", { class: "note" }, "Drag to zoom, double-click to reset, click a name to hide its line.")), host, below);
  offer();
  draw();
}

// ---- trials of a search ----------------------------------------------------------------------------------------------------------------

/** `fit[nhits,trial=3]` is trial 3 of the search of `fit[nhits]`. */
const searchOf = (t) => where(t.pipeline, t.stage.replace(/([[,])(trial|rung)=.*$/, (_, before) => before === "[" ? "" : "]"));
const placeOf = (t) => Number((t.stage.match(/(?:trial|place)=(\d+)/) || [])[1]);

function trials() {
  for (const search of unique(record.trials.map(searchOf))) {
    const of = record.trials.filter((t) => searchOf(t) === search).sort((a, b) => a.rung - b.rung || placeOf(a) - placeOf(b));
    const finite = of.filter((t) => Number.isFinite(t.loss));
    const fresh = finite.filter((t) => t.rung === 0), later = finite.filter((t) => t.rung > 0);
    let lowest = Infinity;
    const best = fresh.map((t) => lowest = Math.min(lowest, t.loss));
    // One that went on stands above the trial that it comes from: they share their options.
    const origin = (t) => placeOf(fresh.find((f) => JSON.stringify(f.options) === JSON.stringify(t.options)) || t);
    const after = [...later].sort((a, b) => origin(a) - origin(b));
    const lines = [
      { label: "trial", dots: true, color: 0, x: fresh.map(placeOf), y: fresh.map((t) => t.loss) },
      { label: "best so far", color: 1, dash: [6, 3], x: fresh.map(placeOf), y: best },
      { label: "after going on", dots: true, color: 2, x: unique(after.map(origin)), y: unique(after.map(origin)).map((x) => Math.min(...after.filter((t) => origin(t) === x).map((t) => t.loss))) },
    ].filter((line) => line.x.length);
    const host = h("div", { class: "chart" });
    body("trials").append(h("h3", null, search), h("p", { class: "note" }, `${of.filter((t) => t.rung === 0).length} trials, ${of.length - finite.length} without a finite loss. Loss: the last one of the validation.`), host);
    if (lines.length) lineChart(host, lines, { x: "trial", y: "validation loss", log: finite.every((t) => t.loss > 0) });
    const options = unique(of.flatMap((t) => Object.keys(t.options)));
    const winner = finite.filter((t) => t.rung === Math.max(...finite.map((o) => o.rung))).reduce((a, b) => !a || b.loss < a.loss ? b : a, null);
    const show = (value) => typeof value === "number" ? number(value) : JSON.stringify(value) ?? "–";
    body("trials").append(table([{ name: "Trial" }, { name: "Loss", number: true }, { name: "Steps", number: true }].concat(options.map((name) => ({ name, number: true }))),
      of.map((t) => [h("th", { scope: "row" }, `${t.rung ? `rung ${t.rung}, place ` : ""}${placeOf(t)}`, t === winner ? h("span", { class: "aside" }, "best") : null), number(t.loss), number(t.steps), ...options.map((name) => show(t.options[name]))]), `Trials of ${search}`));
  }
}

// ---- learning curves ---------------------------------------------------------------------------------------------------------------

function curves() {
  for (const pipeline of unique(record.curves.map((c) => c.pipeline))) {
    const of = record.curves.filter((c) => c.pipeline === pipeline);
    if (several) body("curves").append(h("h3", null, pipeline));
    const lines = of.flatMap((c) => [["train", c.train], ["validation", c.valid]].filter(([, points]) => points.length).map(([what, points]) => ({
      label: `${c.model} ${what}`, color: colourOf(c.model), dash: what === "train" ? [] : [7, 4], width: what === "train" ? 1.4 : 2.25,
      x: points.map((p) => p[0]), y: points.map((p) => p[1]),
    })));
    const positive = lines.every((l) => l.y.every((v) => v === null || v > 0));
    const host = h("div", { class: "chart" });
    const draw = () => { forget(host); lineChart(host, lines, { x: "training step", y: "loss", log: log.checked }); };
    const log = h("input", { type: "checkbox", checked: positive, onchange: () => draw() });
    body("curves").append(h("div", { class: "controls" }, positive ? h("label", null, log, "logarithmic") : null, h("span", { class: "note" }, "Solid: training loss. Dashed: validation loss.")), host);
    draw();
    const steps = () => unique(lines.flatMap((l) => l.x)).sort((a, b) => a - b);
    const trained = [{ name: "Model" }, { name: "Parameters", number: true }, { name: "Steps", number: true }, { name: "Best step", number: true }, { name: "Steps per second", number: true }];
    const last = (c) => Math.max(0, ...c.train.concat(c.valid).map((p) => p[0]));
    body("curves").append(table(trained, of.map((c) => [c.model, number(c.parameters), number(last(c)), number(c.best_step), number(c.steps_per_second || null)]), `Trainings of ${pipeline}`));
    body("curves").append(asTable([{ name: "Step", number: true }].concat(lines.map((l) => ({ name: l.label, number: true }))),
      () => steps().map((s) => [String(s), ...lines.map((l) => number(l.y[l.x.indexOf(s)]))]), `Loss by step of ${pipeline}`));
  }
}

// ---- timeline, stages, tasks -------------------------------------------------------------------------------------------------------

const outcome = (task) => task.outcome;
/** `fit[nhits]` is the cell `nhits` of stage `fit`. */
const stageOf = (task) => task.stage.replace(/\[.*\]$/, "");
const cellOf = (task) => (task.stage.match(/\[(.*)\]$/) || [])[1];
const overhead = (task) => Number.isFinite(task.overhead_ms) ? task.overhead_ms : OVERHEAD.reduce((sum, name) => sum + part(task, PARTS.find((p) => p.name === name)), 0) * 1000;
const again = (task) => task.attempt > 1 ? ` (attempt ${task.attempt})` : "";

function timeline() {
  const zero = Math.min(...record.tasks.map((t) => t.times.submitted ?? Infinity));
  const span = Math.max(...record.tasks.map((t) => Math.max(...PARTS.map((p) => t.times[p.to] ?? 0)))) - zero;
  const rows = [], small = [];
  for (const key of unique(record.tasks.map((t) => where(t.pipeline, stageOf(t))))) {
    const of = record.tasks.filter((t) => where(t.pipeline, stageOf(t)) === key);
    const alone = of.length === 1 && !cellOf(of[0]);
    if (!alone) rows.push({ head: key });
    for (const task of of) {
      const label = (alone ? key : cellOf(task) || task.stage) + again(task);
      const failed = outcome(task) === "failed";
      const title = `${where(task.pipeline, task.stage)}${again(task)}\n${PARTS.map((p) => `${p.name}: ${seconds(part(task, p))}`).join("\n")}`;
      rows.push({ label, inside: !alone, title, note: `${failed ? "✗ " : ""}${seconds(part(task, PARTS[3]))}`, bars: PARTS.filter((p) => part(task, p) > 0).map((p) => ({ from: task.times[p.from] - zero, to: task.times[p.to] - zero, class: p.name + (failed && p.name === "run" ? " failed" : "") })) });
      let at = 0;
      small.push({ inside: true, label: where(task.pipeline, task.stage) + again(task), title, note: milliseconds(overhead(task)), bars: OVERHEAD.map((name) => {
        const wide = part(task, PARTS.find((p) => p.name === name)) * 1000, bar = { from: at, to: at + wide, class: name };
        at += wide;
        return bar;
      }) });
    }
  }
  const chart = h("div", { class: "scroll" }), cost = h("div", { class: "scroll" });
  body("timeline").append(partKey(PARTS.map((p) => p.name)), chart, h("h3", null, "Overhead of the runtime, task by task"),
    h("p", { class: "note" }, "What a task costs beyond its own work and its wait for free cores."), partKey(OVERHEAD), cost);
  bars(chart, rows, span, "s", `Timeline of ${record.tasks.length} tasks over ${seconds(span)}`);
  bars(cost, small, Math.max(...small.map((row) => row.bars[2].to)) * 1.02, "ms", "Overhead of each task in milliseconds");
  body("timeline").append(asTable([{ name: "Task" }].concat(PARTS.map((p) => ({ name: `${p.name} (ms)`, number: true })), { name: "overhead (ms)", number: true }),
    () => record.tasks.map((t) => [where(t.pipeline, t.stage) + again(t), ...PARTS.map((p) => number(part(t, p) * 1000)), number(overhead(t))]), "Parts of each task's time"));
}

function stages() {
  body("stages").append(table([{ name: "Stage" }, { name: "Kind" }, { name: "Needs" }, { name: "Status" }, { name: "Time", number: true }, { name: "Rows", number: true }, { name: "Why" }],
    record.stages.map((s) => [h("th", { scope: "row" }, where(s.pipeline, s.stage)), s.kind, s.needs.join(", "), badge(s.status), seconds(s.seconds), s.rows === null || s.rows === undefined ? "–" : number(s.rows), s.error || s.reason || ""]), "Stages"));
}

function tasks() {
  const host = h("div");
  const search = h("input", { type: "search", placeholder: "name or text of a log", oninput: () => fill() });
  const onlyFailed = h("input", { type: "checkbox", onchange: () => fill() });
  const logView = (task) => {
    const files = (task.logs || []).filter((file) => logs[file]);
    if (!files.length) return h("span", { class: "soft" }, "nothing written");
    return h("details", { open: outcome(task) === "failed" }, h("summary", null, `${files.length} file${files.length > 1 ? "s" : ""}`),
      files.map((file) => [h("div", { class: "note mono" }, file), h("pre", { tabindex: "0" }, logs[file])]));
  };
  const fill = () => {
    const wanted = search.value.toLowerCase();
    const text = (t) => `${t.pipeline} ${t.stage} ${t.name} ${(t.logs || []).map((file) => logs[file] || "").join("\n")}`.toLowerCase();
    const shown = record.tasks.filter((t) => (!onlyFailed.checked || outcome(t) === "failed") && text(t).includes(wanted));
    host.replaceChildren(table([{ name: "Stage" }, { name: "Outcome" }, { name: "Attempt", number: true }, { name: "Ranks", number: true }, { name: "Cores per rank", number: true }, { name: "Run", number: true }, { name: "Overhead", number: true }, { name: "Logs" }],
      shown.map((t) => [h("th", { scope: "row" }, where(t.pipeline, t.stage)), badge(outcome(t)), String(t.attempt), String(t.ranks), String(t.cores), seconds(part(t, PARTS[3])), milliseconds(overhead(t)), logView(t)]), "Tasks"));
    if (!shown.length) host.append(h("p", { class: "soft" }, "No task matches."));
  };
  body("tasks").append(h("div", { class: "controls" }, h("label", null, "Find ", search), h("label", null, onlyFailed, "only failed")), host);
  fill();
}

// ---- configuration, environment ----------------------------------------------------------------------------------------------------

function configuration() {
  for (const p of record.pipelines) {
    body("configuration").append(h("details", { open: !several }, h("summary", null, `${p.name} · ${p.file}`), h("pre", { tabindex: "0" }, p.toml)));
  }
}
function environment() {
  const { host, cores, memory, deeprc, command_line, more } = record.environment;
  const facts = { host, cores, memory: `${number(memory)} MiB`, deeprc, ...more, command: command_line.join(" ") };
  body("environment").append(table([{ name: "What" }, { name: "Value" }], Object.entries(facts).map(([name, value]) =>
    [h("th", { scope: "row" }, name.replaceAll("_", " ")), h("span", { class: "mono" }, String(value))]), "Environment"));
}

// ---- all of it; a section that cannot be drawn says so and leaves the others alone -------------------------------------------------------

const problems = [];
function section(id, draw, present) {
  const host = document.getElementById(id), title = host.querySelector("h2");
  if (!present) { host.hidden = true; return; }
  if (title) document.getElementById("menu").append(h("li", null, h("a", { href: `#${id}` }, title.textContent)));
  try { draw(); } catch (error) {
    problems.push(`${id}: ${error.message}`);
    console.error(id, error);
    host.append(h("p", { class: "bad" }, `✗ this section could not be drawn: ${error.message}`));
  }
}
head();
section("summary", summary, true);
section("errors", errors, record.errors.length);
section("metrics", metrics, record.metrics.length);
section("forecasts", forecasts, record.forecasts.length);
section("trials", trials, (record.trials || []).length);
section("curves", curves, record.curves.length);
section("timeline", timeline, record.tasks.length);
section("stages", stages, record.stages.length);
section("tasks", tasks, record.tasks.length);
section("configuration", configuration, record.pipelines.length);
section("environment", environment, true);
document.documentElement.dataset.drawn = problems.length ? problems.join("; ") : "all";
