// Numbers as people read them: bytes in steps of 1024, unknown where nothing is known. And elements made of text alone,
// so that no name can become markup.

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

export function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString();
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

// The rows of a table. Each of *rows* is a list of cells: texts, or {text, className}; the first one is its heading.
export function fill(body, rows) {
  body.replaceChildren(
    ...rows.map((cells) => {
      const row = element("tr");
      cells.forEach((cell, at) => {
        const { text, className = "" } = typeof cell === "object" && cell !== null ? cell : { text: cell };
        const made = element(at ? "td" : "th", { parent: row, className, text: String(text ?? "") });
        if (!at) made.scope = "row";
      });
      return row;
    }),
  );
}
