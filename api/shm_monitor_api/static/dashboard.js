"use strict";
// One page over /history (once) and /events. Text goes in by textContent alone, so that no name can become markup.

const WINDOW_SECONDS = 300;
const WINDOW_SECONDS_MIN = 60;
const RETRY_MS = 5000;
const POINTS_MAX = 1200;
const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

const series = new Map(); // metric name -> [[unix seconds, number or null], ...], oldest first
const tiles = new Map(); // key -> the elements of one tile
let newest = null;
let receivedAt = 0;
let trouble = "";

function percent(value) {
  return value === null ? "unknown" : `${value.toFixed(value < 10 ? 1 : 0)} %`;
}

function bytes(value) {
  if (value === null) return "unknown";
  const units = ["B", "KB", "MB", "GB", "TB", "PB"]; // steps of 1024, as everywhere here
  const step = value < 1 ? 0 : Math.min(Math.floor(Math.log2(value) / 10), units.length - 1);
  return `${(value / 1024 ** step).toFixed(step && value / 1024 ** step < 100 ? 1 : 0)} ${units[step]}`;
}

function duration(seconds) {
  if (seconds === null) return "";
  if (seconds < 120) return `${seconds.toFixed(0)} s`;
  return seconds < 7200 ? `${(seconds / 60).toFixed(0)} min` : seconds < 172800 ? `${(seconds / 3600).toFixed(0)} h` : "days";
}

function inUnit(value, metric) {
  if (value === null) return "";
  if (metric.endsWith("bytes")) return bytes(value);
  if (metric.endsWith("bytes_per_second")) return `${bytes(value)}/s`;
  return metric.endsWith("percent") ? percent(value) : String(value);
}

// What is shown of a snapshot: one tile per row; `metric` names its line in /history, `top` the upper end of its scale.
function rowsOf(snapshot) {
  const { cpu, memory, stall, network, disk } = snapshot;
  const of = (part, whole) => `${bytes(part)} of ${bytes(whole)}`;
  const rows = [
    {
      key: "cpu", title: "CPU", metric: "cpu.cpu_percent", now: cpu.cpu_percent, text: percent, top: 100,
      detail: `${cpu.effective_count ?? "?"} of ${cpu.count ?? "?"} CPUs, load ${cpu.load_1 ?? "?"}`,
    },
    {
      key: "memory", title: `Memory (${memory.scope ?? "unknown scope"})`, metric: "memory.usage_percent",
      now: memory.usage_percent, text: percent, top: 100, detail: of(memory.usage_bytes, memory.capacity_bytes),
    },
  ];
  for (const gpu of snapshot.gpus) {
    const name = `GPU ${gpu.instance} ${gpu.name}`;
    const facts = [gpu.temperature_celsius === null ? "" : `${gpu.temperature_celsius} °C`];
    facts.push(gpu.power_watts === null ? "" : `${gpu.power_watts.toFixed(0)} W`, ...(gpu.throttle_reasons ?? []));
    rows.push(
      {
        key: `gpu${gpu.instance}`, title: name, metric: `gpu:${gpu.instance}.utilization_percent`,
        now: gpu.utilization_percent, text: percent, top: 100, detail: facts.filter(Boolean).join(", "),
      },
      {
        key: `gpu-memory${gpu.instance}`, title: `${name}, memory`, metric: `gpu:${gpu.instance}.memory_percent`,
        now: gpu.memory_percent, text: percent, top: 100, detail: of(gpu.memory_used_bytes, gpu.memory_total_bytes),
      },
    );
  }
  rows.push(
    {
      key: "network", title: "Network", metric: "network.usage_bytes_per_second",
      now: network.usage_bytes_per_second, text: (value) => (value === null ? "unknown" : `${bytes(value)}/s`),
      detail: `${bytes(network.receive_bytes_per_second)}/s in, ${bytes(network.transmit_bytes_per_second)}/s out`,
    },
    {
      key: "stall", title: "Stall (memory, full)", metric: "stall.memory_full_percent",
      now: stall.memory_full_percent, text: percent, top: 100,
      detail: `cpu ${percent(stall.cpu_some_percent)}, io ${percent(stall.io_full_percent)}`,
    },
    {
      key: "disk", title: "Disk", metric: "disk.read_bytes_per_second", now: disk.read_bytes_per_second,
      text: (value) => (value === null ? "unknown" : `${bytes(value)}/s read`),
      detail: disk.write_bytes_per_second === null ? "" : `${bytes(disk.write_bytes_per_second)}/s written`,
    },
  );
  return rows;
}

function element(kind, parent, className = "") {
  const made = document.createElement(kind);
  if (className) made.className = className;
  parent.append(made);
  return made;
}

function tileOf(key) {
  if (!tiles.has(key)) {
    const article = element("article", byId("tiles"));
    const parts = { title: element("h3", article), value: element("p", article, "value"), article };
    parts.detail = element("p", article, "detail");
    const picture = document.createElementNS(SVG, "svg");
    picture.setAttribute("viewBox", "0 0 100 30");
    picture.setAttribute("preserveAspectRatio", "none");
    picture.setAttribute("aria-hidden", "true");
    parts.path = document.createElementNS(SVG, "path");
    picture.append(parts.path);
    article.append(picture);
    tiles.set(key, parts);
  }
  return tiles.get(key);
}

function add(metric, time, value) {
  const points = series.get(metric) ?? [];
  series.set(metric, points);
  if (points.length && points[points.length - 1][0] >= time) return;
  points.push([time, value]);
  const oldest = time - WINDOW_SECONDS;
  while (points[0][0] < oldest || points.length > POINTS_MAX) points.shift();
}

// An SVG path; unknown samples leave a gap.
function line(points, top, end) {
  const highest = top ?? Math.max(1, ...points.map(([, value]) => value ?? 0));
  const seconds = Math.max(end - points[0][0], WINDOW_SECONDS_MIN);
  let pen = "M";
  let path = "";
  for (const [time, value] of points) {
    if (value === null) {
      pen = "M";
      continue;
    }
    const x = 100 * (1 - (end - time) / seconds);
    path += `${pen}${x.toFixed(2)} ${(29 - 28 * Math.min(value / highest, 1)).toFixed(2)}`;
    pen = "L";
  }
  return path;
}

function showTiles(snapshot) {
  const shown = new Set();
  for (const row of rowsOf(snapshot)) {
    add(row.metric, snapshot.sampled_at, row.now);
    const tile = tileOf(row.key);
    tile.title.textContent = row.title;
    tile.value.textContent = row.text(row.now);
    tile.detail.textContent = row.detail;
    tile.path.setAttribute("d", line(series.get(row.metric), row.top, snapshot.sampled_at));
    shown.add(row.key);
  }
  for (const [key, tile] of tiles) tile.article.hidden = !shown.has(key); // a device that has gone
}

function showLimits(limits) {
  byId("limits-part").hidden = limits.length === 0;
  byId("limits").replaceChildren(
    ...limits.map((one) => {
      const row = document.createElement("tr");
      const known = (value) => inUnit(value, one.metric);
      const cells = [one.limit, one.level, known(one.value), known(one.mean), known(one.limit_value)];
      cells.push(known(one.capacity), duration(one.seconds_to_limit), one.reasons.join(", "));
      for (const text of cells) element("td", row).textContent = text;
      row.children[1].className = one.level;
      return row;
    }),
  );
}

function showReasons(explanation) {
  byId("reasons-part").hidden = explanation.reasons.length === 0;
  byId("reasons").replaceChildren(
    ...explanation.reasons.map((one) => {
      const item = document.createElement("li");
      const known = (value) => (value === null ? "unknown" : inUnit(value, one.unit));
      const since = new Date(one.since * 1000).toLocaleTimeString();
      item.textContent = `${one.limit}: ${one.reason} at ${known(one.value)}, limit ${known(one.limit_value)}, since ${since}`;
      item.className = one.level;
      return item;
    }),
  );
}

function showAge() {
  const banner = byId("banner");
  banner.hidden = trouble === "";
  banner.textContent = trouble;
  document.body.classList.toggle("old", trouble !== "");
  showVerdict();
  if (newest === null) return;
  const age = newest.age_seconds + (performance.now() - receivedAt) / 1000;
  const injected = newest.injected.length ? `; INJECTED: ${newest.injected.join(", ")}` : "";
  const when = `sample ${newest.sequence}, ${age.toFixed(1)} s ago, one every ${newest.interval_seconds} s`;
  byId("sample").textContent = when + injected;
}

// What an old sample said is no verdict of now.
function showVerdict() {
  const level = newest === null || trouble ? "unknown" : newest.level;
  const text = level !== "unknown" && newest.should_prune ? `${level}: shed work` : newest === null ? "waiting" : level;
  if (byId("verdict").textContent !== text) byId("verdict").textContent = text;
  byId("verdict").className = `badge ${level}`;
  byId("icon").href = trouble ? "icon-dead.svg" : "icon.svg";
  document.title = `${text.toUpperCase()} · shm-monitor ${newest === null ? "" : newest.name}`.trim();
}

function showWorkers(present) {
  byId("workers-part").hidden = present.length === 0;
  byId("workers").replaceChildren(
    ...present.map((one) => {
      const row = document.createElement("tr");
      const asked = one.request_bytes ? `${bytes(one.request_bytes)} in round ${one.round_number}` : "";
      for (const text of [one.pid, bytes(one.held_bytes), `${one.share.toFixed(1)} x`, asked]) {
        element("td", row).textContent = String(text);
      }
      return row;
    }),
  );
}

function show(snapshot) {
  newest = snapshot;
  receivedAt = performance.now();
  byId("name").textContent = snapshot.name;
  showTiles(snapshot);
  showLimits(snapshot.limits);
  showWorkers(snapshot.present);
  showAge();
}

async function past() {
  try {
    const wanted = "stall.memory_full_percent,disk.read_bytes_per_second";
    for (const query of ["", `&metrics=${wanted}`]) {
      const answer = await fetch(`history?seconds=${WINDOW_SECONDS}${query}`);
      if (!answer.ok) continue;
      const { times, columns } = await answer.json();
      for (const [metric, values] of Object.entries(columns)) values.forEach((value, at) => add(metric, times[at], value));
    }
  } catch {
    // Without the past the lines begin now.
  }
}

function listen() {
  const events = new EventSource("events");
  const onEvent = (name, handle) =>
    events.addEventListener(name, (event) => {
      handle(JSON.parse(event.data));
      showAge();
    });
  onEvent("snapshot", (snapshot) => {
    trouble = snapshot.stale ? "no live sampler stands behind these numbers; try: shm-monitor status" : "";
    show(snapshot);
  });
  onEvent("prune", showReasons);
  onEvent("stale", (liveness) => {
    const detail = liveness.detail || `the sampler is ${liveness.state}; try: shm-monitor status`;
    trouble = liveness.stale ? detail : "";
  });
  events.onerror = () => {
    trouble = "the connection to the API is lost; trying again";
    showAge();
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, RETRY_MS);
  };
}

setInterval(showAge, 1000);
past().then(listen);
