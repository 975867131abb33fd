// What a chart looks like: the same for the dashboard, its what-if and the page of a replay. Data in, figures out.

export const THEMES = {
  light: {
    text: "#1c2330", faint: "#566072", grid: "#e3e7ed", card: "#ffffff",
    series: ["#1f6feb", "#0f7b6c", "#8250df", "#bf3989", "#9a6700", "#57606a"],
    limit: "#cf222e", target: "#bc4c00", capacity: "#57606a", mean: "#6e7781",
    prune: "rgba(207, 34, 46, 0.16)", critical: "rgba(207, 34, 46, 0.34)", was: "#6e7781", would: "#8250df",
    heat: [[0, "#f0f4fa"], [0.5, "#7fb0f5"], [1, "#0a3d91"]],
  },
  dark: {
    text: "#e6eaf0", faint: "#a3afbf", grid: "#2b3542", card: "#171e27",
    series: ["#58a6ff", "#39c5bb", "#bc8cff", "#f778ba", "#d29922", "#9aa4b2"],
    limit: "#ff7b72", target: "#f0883e", capacity: "#9aa4b2", mean: "#8b949e",
    prune: "rgba(255, 123, 114, 0.20)", critical: "rgba(255, 123, 114, 0.42)", was: "#9aa4b2", would: "#bc8cff",
    heat: [[0, "#1c2531"], [0.5, "#1f6feb"], [1, "#cfe3ff"]],
  },
};

export const OPTIONS = { responsive: true, displayModeBar: false, doubleClick: false, showTips: false };

const POINTS_MAX = 1200; // per line: two per pixel of a card
const UNITS = ["B", "KB", "MB", "GB", "TB", "PB"]; // steps of 1024, as everywhere here
const STRIP_PIXELS = 18;
const LABEL_PIXELS = 12; // the height of a label of a line, and the width of two of its letters
const DAY_MS = 86400000;
const TIMES = [
  { dtickrange: [null, 59999], value: "%H:%M:%S" }, { dtickrange: [60000, DAY_MS / 2], value: "%H:%M" },
  { dtickrange: [DAY_MS / 2, null], value: "%d %b %H:%M" },
];
const DASHES = { limit: "solid", target: "dash", capacity: "dot", mean: "solid" };

// The step of 1024 in which *highest* is read best: what to divide by, and its name.
export function scale(unit, highest) {
  if (unit === "percent") return { divisor: 1, name: "%" };
  if (!unit.startsWith("bytes")) return { divisor: 1, name: unit.replaceAll("_", " ") };
  const step = highest < 1 ? 0 : Math.min(Math.floor(Math.log2(highest) / 10), UNITS.length - 1);
  return { divisor: 1024 ** step, name: UNITS[step] + (unit === "bytes_per_second" ? "/s" : "") };
}

// Places of the points to draw: where there are many, the lowest and the highest of each stretch, so that a spike of
// one sample stays to be seen.
export function thinned(values, from, to, most = POINTS_MAX) {
  const count = to - from;
  if (count <= most) return Array.from({ length: count }, (_, at) => from + at);
  const places = [];
  const size = (2 * count) / most;
  for (let begin = 0; begin < count; begin += size) {
    const first = from + Math.floor(begin);
    const end = Math.min(from + Math.floor(begin + size), to);
    let low = first;
    let high = first;
    for (let at = first; at < end; at += 1) {
      if (values[at] === null) continue;
      if (values[low] === null || values[at] < values[low]) low = at;
      if (values[high] === null || values[at] > values[high]) high = at;
    }
    places.push(Math.min(low, high));
    if (low !== high) places.push(Math.max(low, high));
  }
  return places;
}

// plotly.js shows numbers on an axis of dates as UTC: what is 14:00 here is told as 14:00 there.
const shift = (seconds) => new Date(seconds * 1000).getTimezoneOffset() * 60;
export const onAxis = (seconds, clock) => (clock ? (seconds - shift(seconds)) * 1000 : seconds);
export function fromAxis(value, clock) {
  if (!clock) return Number(value);
  const seconds = (typeof value === "number" ? value : Date.parse(`${value.replace(" ", "T")}Z`)) / 1000;
  return seconds + shift(seconds + shift(seconds));
}

// The figure of one chart.
//   unit, range: [from, to] in seconds; clock: whether these are unix seconds, to be shown as times of the day
//   lines: [{name, times, values, kind?, isArea?}]; kind is limit, target, capacity or mean, else it is a reading; an
//     area lies under the lines, so that one that is equal stays to be seen
//   bars: [{kind, name?, value}]: what holds now, drawn over the whole width and named beside the chart
//   forecast: {times: [a, b], values: [a, b]} or null
//   episodes: [{begin, end, level}], end null while it lasts; strips: [{name, color, episodes}] above the chart
//   top: the least upper end of the scale
export function figure(chart, theme) {
  const bars = (chart.bars ?? []).filter((bar) => bar.value !== null);
  const { divisor, name } = scale(chart.unit, highestOf(chart, bars));
  const data = chart.lines.map((line, at) => traceOf(line, at, chart, theme, divisor, name));
  if (chart.forecast) data.push(forecastOf(chart, theme, divisor));
  const layout = layoutOf(chart, theme);
  const highest = highestOf(chart, bars) * 1.04;
  layout.yaxis.range = [0, highest / divisor];
  layout.margin.r = Math.max(layout.margin.r, ...bars.map((bar) => 8 + (nameOf(bar).length * LABEL_PIXELS) / 2));
  layout.yaxis.ticksuffix = name === "%" ? " %" : ` ${name}`;
  layout.shapes = [
    ...(chart.episodes ?? []).map((one) => shade(one, chart, theme[one.level] ?? theme.prune, 0, 1)),
    ...bars.map((bar) => rule(bar.value / divisor, theme[bar.kind], DASHES[bar.kind])),
    ...stripShapes(chart, layout, theme),
  ];
  layout.annotations = [
    ...apart(bars.map((bar) => bar.value / highest), LABEL_PIXELS / plotPixels(layout)).map((share, at) =>
      note(nameOf(bars[at]), 1, share, theme[bars[at].kind], "middle"),
    ),
    ...(chart.strips ?? []).map((strip, at) => note(strip.name, 0, stripAt(at, layout)[1], theme[strip.color], "top")),
  ];
  return { data, layout };
}

// Rows of bars: when which limit pressed. *rows*: [{name, episodes}].
export function timeline(rows, chart, theme) {
  const layout = layoutOf({ ...chart, height: 46 + 26 * rows.length }, theme);
  layout.margin.l = 104;
  layout.hovermode = "closest";
  layout.yaxis = { ...layout.yaxis, type: "category", autorange: "reversed", ticks: "", showgrid: false };
  layout.bargap = 0.35;
  const colors = { prune: theme.target, critical: theme.limit };
  const bars = rows.flatMap((row) => row.episodes.map((one) => ({ ...one, name: row.name })));
  const place = (seconds) => onAxis(seconds, chart.clock);
  const end = (one) => Math.min(one.end ?? chart.range[1], chart.range[1]);
  return {
    data: [
      // An empty bar per row keeps it in its place.
      { type: "bar", orientation: "h", y: rows.map((row) => row.name), x: rows.map(() => 0), hoverinfo: "skip" },
      {
        type: "bar", orientation: "h", y: bars.map((one) => one.name), base: bars.map((one) => place(one.begin)),
        x: bars.map((one) => (chart.clock ? 1000 : 1) * Math.max(end(one) - one.begin, (chart.range[1] - chart.range[0]) / 400)),
        marker: { color: bars.map((one) => colors[one.level] ?? theme.target) }, text: bars.map((one) => one.label ?? ""),
        textposition: "none", hovertemplate: "%{text}<extra></extra>",
      },
    ],
    layout: { ...layout, barmode: "overlay" },
  };
}

// Cores over time. *rows*: [{name, values}], all over *times*.
export function heatmap(rows, times, chart, theme) {
  const height = Math.max(120, Math.min(46 + 14 * rows.length, 420));
  const layout = layoutOf({ ...chart, height }, theme);
  layout.hovermode = "closest";
  layout.margin.r = 60; // for the scale of colours
  layout.yaxis = { ...layout.yaxis, type: "category", showgrid: false, nticks: 12 };
  const x = times.map((seconds) => onAxis(seconds, chart.clock));
  const z = rows.map((row) => row.values);
  return {
    data: [
      {
        type: "heatmap", x, y: rows.map((row) => row.name), z, zmin: 0, zmax: 100, colorscale: theme.heat,
        hovertemplate: "core %{y}: %{z:.0f} %<extra></extra>",
        colorbar: { thickness: 8, x: 1, xpad: 6, ticksuffix: " %", nticks: 3, outlinewidth: 0, tickfont: { color: theme.faint } },
      },
    ],
    layout,
  };
}

function highestOf(chart, bars) {
  let highest = Math.max(chart.top ?? 0, ...bars.map((bar) => bar.value));
  for (const line of chart.lines) for (const value of line.values) if (value > highest) highest = value;
  return highest > 0 ? highest : 1;
}

function traceOf(line, at, chart, theme, divisor, unit) {
  const [from, to] = within(line.times, chart.range);
  const places = thinned(line.values, from, to);
  const color = theme[line.kind] ?? theme.series[at % theme.series.length];
  const digits = unit === "%" ? 1 : 2;
  return {
    type: "scatter", mode: "lines", name: line.name,
    x: places.map((place) => onAxis(line.times[place], chart.clock)),
    y: places.map((place) => (line.values[place] === null ? null : line.values[place] / divisor)),
    line: { color, width: line.kind || line.isArea ? 1.2 : 1.6, dash: DASHES[line.kind] ?? "solid" },
    hovertemplate: `%{y:.${digits}f} ${unit}`,
    ...(line.isArea ? { fill: "tozeroy", fillcolor: `${color}40` } : { zorder: 1 }),
  };
}

// The stretch of *times* in *range*, and one point on each side, so that lines reach the edges.
function within(times, [from, to]) {
  let first = 0;
  let last = times.length;
  while (first < last - 1 && times[first + 1] < from) first += 1;
  while (last > first + 1 && times[last - 2] > to) last -= 1;
  return [first, last];
}

function forecastOf(chart, theme, divisor) {
  return {
    type: "scatter", mode: "lines", name: "forecast", x: chart.forecast.times.map((one) => onAxis(one, chart.clock)),
    y: chart.forecast.values.map((one) => one / divisor), line: { color: theme.limit, width: 2, dash: "dot" },
    hoverinfo: "skip",
  };
}

function layoutOf(chart, theme) {
  const strips = chart.strips?.length ?? 0;
  const axis = {
    gridcolor: theme.grid, zeroline: false, linecolor: theme.grid, tickfont: { size: 11, color: theme.faint }, nticks: 5,
  };
  return {
    height: (chart.height ?? 170) + STRIP_PIXELS * strips,
    margin: { l: 60, r: 14, t: 8 + STRIP_PIXELS * strips, b: 24, autoexpand: false },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 11, color: theme.text },
    hovermode: "x unified", hoverlabel: { bgcolor: theme.card, bordercolor: theme.grid, font: { color: theme.text } },
    showlegend: false, dragmode: "zoom",
    xaxis: {
      ...axis, type: chart.clock ? "date" : "linear", range: chart.range.map((one) => onAxis(one, chart.clock)),
      hoverformat: chart.clock ? "%H:%M:%S" : ".1f", ticksuffix: chart.clock ? "" : " s", nticks: 6, tickangle: 0,
      tickformatstops: chart.clock ? TIMES : [], showspikes: false,
    },
    yaxis: { ...axis, fixedrange: true, rangemode: "tozero" },
    shapes: [], annotations: [],
  };
}

function shade(one, chart, fillcolor, y0, y1) {
  const end = one.end ?? chart.range[1];
  const x = [one.begin, end].map((seconds) => onAxis(Math.min(Math.max(seconds, chart.range[0]), chart.range[1]), chart.clock));
  return { type: "rect", xref: "x", yref: "paper", x0: x[0], x1: x[1], y0, y1, fillcolor, line: { width: 0 }, layer: y1 > 1 ? "above" : "below" };
}

const plotPixels = (layout) => layout.height - layout.margin.t - layout.margin.b;

// Lower and upper end of strip *at*, as shares of the height of the plot.
function stripAt(at, layout) {
  const plot = plotPixels(layout);
  return [1 + (4 + STRIP_PIXELS * at) / plot, 1 + (STRIP_PIXELS * (at + 1)) / plot];
}

function stripShapes(chart, layout, theme) {
  return (chart.strips ?? []).flatMap((strip, at) =>
    strip.episodes.map((one) => shade(one, chart, theme[strip.color], ...stripAt(at, layout))),
  );
}

function rule(value, color, dash) {
  return { type: "line", xref: "paper", yref: "y", x0: 0, x1: 1, y0: value, y1: value, line: { color, width: 1.3, dash }, layer: "below" };
}

const nameOf = (bar) => bar.name ?? bar.kind;

// *shares* of the height, moved until they are *gap* apart and none is above the top.
function apart(shares, gap) {
  const places = [...shares];
  const upward = shares.map((_, at) => at).sort((a, b) => shares[a] - shares[b]);
  let end = 0;
  for (const at of upward) {
    places[at] = Math.max(shares[at], end);
    end = places[at] + gap;
  }
  end = 1;
  for (const at of upward.reverse()) {
    places[at] = Math.min(places[at], end);
    end = places[at] - gap;
  }
  return places;
}

function note(text, x, y, color, yanchor) {
  return { text, x, y, xref: "paper", yref: "paper", xanchor: "left", yanchor, showarrow: false, xshift: x ? 2 : 0, font: { size: 10, color } };
}
