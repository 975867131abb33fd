// The page of a replay: the charts of the dashboard over a whole trace, settings beside each other.

const report = JSON.parse(document.getElementById("data").textContent);
const whole = [0, Math.max(report.seconds, 1)];
const drawn = []; // [place, limit]
let range = whole;

function rowOf(kind, texts, differs = false) {
  const row = document.createElement("tr");
  for (const text of texts) {
    const cell = document.createElement(kind);
    cell.textContent = text;
    if (differs) cell.className = "differs";
    row.append(cell);
  }
  return row;
}

function colors() {
  return THEMES[matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"];
}

function draw() {
  for (const [place, limit] of drawn) {
    const chart = { ...limit, range, clock: false, height: 280, strips: [{ name: "pressed", color: "limit", episodes: limit.episodes }] };
    const { data, layout } = figure(chart, colors());
    layout.showlegend = true;
    layout.legend = { orientation: "h", y: -0.15, font: { size: 11 } };
    layout.margin.b = 48;
    Plotly.react(place, data, layout, OPTIONS);
  }
}

function zoomTo(wanted) {
  range = wanted;
  draw();
}

function add(parent, kind, text = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  parent.append(made);
  return made;
}

document.getElementById("told").textContent = report.told;
const names = report.tried.map((one) => one.name);
const headings = ["episodes", "first prune", "before the peak", "time pressed"];
document.getElementById("head").append(
  rowOf("th", ["limit", ...headings.flatMap((heading) => names.map((name) => (names.length > 1 ? `${heading}, ${name}` : heading)))]),
);
document.getElementById("rows").append(
  ...report.rows.map(([limit, ...cells]) => rowOf("td", [limit, ...headings.flatMap((_, at) => cells.map((one) => one[at]))])),
);
document.getElementById("settings-head").append(rowOf("th", ["setting", ...names]));
document.getElementById("settings").append(
  ...report.settings.map((cells) => rowOf("td", cells, new Set(cells.slice(1)).size > 1)),
);
for (const name of report.limits) {
  const beside = add(document.getElementById("charts"), "div");
  beside.className = "beside";
  for (const tried of report.tried) {
    const limit = tried.limits[name];
    if (!limit) continue;
    const card = add(beside, "article");
    add(card, "h3", `${name}${names.length > 1 ? `, ${tried.name}` : ""}: ${limit.episodes.length} ${limit.episodes.length === 1 ? "episode" : "episodes"}`);
    drawn.push([add(card, "div"), limit]);
  }
}
draw();
for (const [place] of drawn) {
  place.on("plotly_relayout", (change) => {
    if (change["xaxis.range[0]"] !== undefined) zoomTo([change["xaxis.range[0]"], change["xaxis.range[1]"]].map(Number));
  });
  place.on("plotly_doubleclick", () => zoomTo(whole));
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
