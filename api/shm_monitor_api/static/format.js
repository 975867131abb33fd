// Numbers as people read them: bytes in steps of 1024, unknown where nothing is known. And elements made of text alone,
// so that no name can become markup.

const OFTEN = 0.8; // of the interval: a sample that came sooner was taken between two turns

export const byId = (id) => document.getElementById(id);

export function percent(value) {
  return value === null || value === undefined ? "unknown" : `${value.toFixed(value < 10 ? 1 : 0)} %`;
}

export function bytes(value) {
  if (value === null || value === undefined) return "unknown";
  const units = ["B", "KB", "MB", "GB", "TB", "PB"];
  const step = value < 1 ? 0 : Math.min(Math.floor(Math.log2(value) / 10), units.length - 1);
  return `${(value / 1024 ** step).toFixed(step && value / 1024 ** step < 100 ? 1 : 0)} ${units[step]}`;
}

export function rate(value) {
  return value === null || value === undefined ? "unknown" : `${bytes(value)}/s`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 120) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  return seconds < 7200 ? `${(seconds / 60).toFixed(0)} min` : seconds < 172800 ? `${(seconds / 3600).toFixed(0)} h` : "days";
}

// *kind* is a unit, or the name of a metric, which ends with its unit.
export function inUnit(value, kind) {
  if (value === null || value === undefined) return "";
  if (kind.endsWith("bytes")) return bytes(value);
  if (kind.endsWith("bytes_per_second")) return rate(value);
  return kind.endsWith("percent") ? percent(value) : String(value);
}

// How long ago something was, in whole seconds: it is written twice a second.
function ago(seconds) {
  return seconds < 1 ? "less than 1 s ago" : `${seconds < 120 ? `${Math.floor(seconds)} s` : duration(seconds)} ago`;
}

// How old the newest sample is, *since* seconds after it came. While memory rises it is read more often than the rest.
export function sampleAge({ sequence, age_seconds: age, interval_seconds: interval, sampler }, since, isLast) {
  if (isLast) return `last sample ${sequence}, ${ago(age + since)}`;
  const between = sampler.interval_seconds ?? interval;
  if (between > OFTEN * interval) return `sample ${sequence}, ${ago(age + since)}, one every ${interval} s`;
  const others = Object.entries(sampler.collectors).filter(([name]) => name !== "memory");
  const rest = Math.min(interval, ...others.map(([, one]) => one.last_ok_age_seconds ?? interval));
  const often = Number(between.toPrecision(1));
  return `sample ${sequence}: memory ${ago(age + since)}, every ${often} s now; the rest ${ago(rest + since)}, every ${interval} s`;
}

// The time of the day as on the axes of the charts.
export function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}

export function day(seconds) {
  return new Date(seconds * 1000).toLocaleDateString("en-GB", { day: "2-digit", month: "short" });
}

export function element(kind, { className = "", text = "", parent = null, ...attributes } = {}) {
  const made = document.createElement(kind);
  if (className) made.className = className;
  if (text) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  parent?.append(made);
  return made;
}

// Text that did not change is not written again: a live region would say it again.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// The rows of a table. Each of *rows* is a list of cells: texts, or {text, className}; the first one is its heading. A
// cell has the class of its column too. What did not change is not written again.
export function fill(body, rows) {
  const columns = body.parentNode.tHead.rows[0].cells;
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, y) => {
    const row = body.rows[y] ?? body.insertRow();
    cells.forEach((cell, x) => {
      const { text, className = "" } = typeof cell === "object" && cell !== null ? cell : { text: cell };
      // A narrow window shows the heading of the column in each cell.
      const made = row.cells[x] ?? element(x ? "td" : "th", { parent: row, "data-heading": columns[x].textContent, ...(x ? {} : { scope: "row" }) });
      const classes = `${columns[x].className} ${className}`.trim();
      if (made.className !== classes) made.className = classes;
      say(made, String(text ?? ""));
    });
  });
}
