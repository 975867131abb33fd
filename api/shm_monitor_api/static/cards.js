// One card per thing that is measured: what it is now, its chart, and the table behind it.

import { figure, heatmap } from "./figures.js";
import { bytes, clock, element, fill, inUnit, percent, rate, say } from "./format.js";

const TABLE_ROWS = 12;
const AREA = "area"; // of a line: it is seen beside another one that is equal

// What there is to show of *snapshot*:
//   key, title, unit, lines: [[name, metric, AREA?]], now, detail
//   limit: the name of the limit whose lines and episodes belong here; top: the least upper end of the scale
//   parts: [name of the button, metrics] that are shown when somebody asks for them
export function cardsOf(snapshot) {
  const named = new Set(snapshot.limits.map((one) => one.limit));
  return [
    ...memoryCards(snapshot, named), ...gpuCards(snapshot), cpuCard(snapshot), stallCard(snapshot), networkCard(snapshot),
    diskCard(snapshot),
  ];
}

function memoryCards({ memory, rolled }, named) {
  const levels = Object.entries(memory.levels);
  if (!levels.length) {
    return [{
      key: "memory", title: "Memory", unit: "bytes", lines: [["in use", "memory.usage_bytes"]], limit: "memory",
      now: bytes(memory.usage_bytes), detail: of(memory.usage_bytes, memory.capacity_bytes), top: memory.capacity_bytes,
    }];
  }
  const limited = levels.filter(([level]) => named.has(`memory:${level}`));
  const others = levels.filter(([level]) => !named.has(`memory:${level}`) && rolled[`memory:${level}.usage_bytes`]);
  const cards = limited.map(([level, one]) => ({
    key: `memory:${level}`, title: `Memory, ${scopeOf(level, one)}`, unit: "bytes", limit: `memory:${level}`,
    lines: [["in use", `memory:${level}.usage_bytes`]], now: bytes(one.usage_bytes),
    detail: of(one.usage_bytes, one.capacity_bytes), top: one.capacity_bytes,
  }));
  if (others.length) {
    cards.push({
      key: "memory-others", title: limited.length ? "Memory, other scopes" : "Memory by scope",
      unit: "bytes", lines: others.map(([level, one], at) => [scopeOf(level, one), `memory:${level}.usage_bytes`, ...(at ? [AREA] : [])]),
      now: bytes(others[0][1].usage_bytes), detail: `in ${scopeOf(...others[0])}`,
    });
  }
  return cards;
}

const scopeOf = (level, one) => (level === "host" ? "host" : one.scope ?? `level ${level}`);

const of = (part, whole) => (whole === null ? "no capacity of its own" : `${percent((100 * part) / whole)} of ${bytes(whole)}`);

function gpuCards({ gpus }) {
  return gpus.map((gpu) => {
    const facts = [gpu.temperature_celsius === null ? "" : `${gpu.temperature_celsius} °C`];
    facts.push(gpu.power_watts === null ? "" : `${gpu.power_watts.toFixed(0)} W`);
    facts.push(gpu.memory_used_bytes === null ? "" : `${bytes(gpu.memory_used_bytes)} of ${bytes(gpu.memory_total_bytes)}`);
    return {
      key: `gpu:${gpu.instance}`, title: `GPU ${gpu.instance} ${gpu.name}`.trim(), unit: "percent", top: 100,
      lines: [["utilization", `gpu:${gpu.instance}.utilization_percent`], ["memory", `gpu:${gpu.instance}.memory_percent`, AREA]],
      limit: `gpu:${gpu.instance}`, otherLimit: `gpu-memory:${gpu.instance}`, now: percent(gpu.utilization_percent),
      detail: [...facts, ...(gpu.throttle_reasons ?? []).map((one) => `slowed by: ${one}`)].filter(Boolean).join(", "),
    };
  });
}

function cpuCard({ cpu }) {
  const cores = Object.keys(cpu.core_percent);
  return {
    key: "cpu", title: "CPU", unit: "percent", top: 100, limit: "cpu", now: percent(cpu.cpu_percent),
    lines: [["ours", "cpu.cpu_percent"], ["host", "cpu.host_cpu_percent", AREA]],
    detail: `${cpu.effective_count ?? "?"} of ${cpu.count ?? "?"} CPUs, load ${cpu.load_1?.toFixed(2) ?? "?"}`,
    parts: cores.length ? { name: "Cores", rows: cores.map((core) => [core, `cpu:${core}.core_percent`]) } : null,
  };
}

function stallCard({ stall }) {
  return {
    key: "stall", title: "Waiting (pressure stall)", unit: "percent", top: 10, now: percent(stall.memory_some_percent),
    detail: "of the time, a task waited for memory",
    lines: [
      ["memory", "stall.memory_some_percent"], ["memory, all tasks", "stall.memory_full_percent", AREA],
      ["cpu", "stall.cpu_some_percent"], ["io", "stall.io_some_percent"],
    ],
  };
}

function networkCard({ network }) {
  const names = Object.keys(network.interfaces);
  return {
    key: "network", title: "Network", unit: "bytes_per_second", limit: "network", now: rate(network.usage_bytes_per_second),
    lines: [["in", "network.receive_bytes_per_second"], ["out", "network.transmit_bytes_per_second", AREA]], top: 1024,
    detail: `${rate(network.receive_bytes_per_second)} in, ${rate(network.transmit_bytes_per_second)} out`,
    parts: names.length
      ? {
        name: "Interfaces",
        lines: names.flatMap((name) => ["receive", "transmit"].map((way) => [
          `${name} ${way === "receive" ? "in" : "out"}`, `network:${name}.${way}_bytes_per_second`,
        ])),
      }
      : null,
  };
}

const sum = (one, other) => (one === null || other === null ? null : one + other);

function diskCard({ disk }) {
  return {
    key: "disk", title: "Disk", unit: "bytes_per_second", top: 1024,
    lines: [["read", "disk.read_bytes_per_second"], ["written", "disk.write_bytes_per_second", AREA]],
    now: rate(sum(disk.read_bytes_per_second, disk.write_bytes_per_second)),
    detail: `${rate(disk.read_bytes_per_second)} read, ${rate(disk.write_bytes_per_second)} written`,
  };
}

export class Card {
  // *page* has the store, the charts, what to draw besides, and is told when more is wanted.
  constructor(card, page) {
    this.page = page;
    this.card = card;
    this.root = element("article", { "aria-labelledby": `title-${card.key}` });
    this.head = element("header", { parent: this.root });
    this.title = element("h3", { parent: this.head, id: `title-${card.key}` });
    this.now = element("p", { parent: this.head, className: "now" });
    this.detail = element("p", { parent: this.root, className: "detail" });
    this.legend = element("p", { parent: this.root, className: "legend" });
    this.chart = element("div", { parent: this.root, className: "chart", "aria-hidden": "true" });
    page.charts.add(this.chart, (theme) => this.figure(theme));
    this.foot = element("div", { parent: this.root, className: "foot" });
    if (card.parts) this.addParts(card.parts);
    this.table = this.addTable();
    this.show(card);
  }

  show(card) {
    this.card = card;
    say(this.title, card.title);
    say(this.now, card.now);
    say(this.detail, card.detail);
    this.showLegend();
    if (this.table.open) this.fillTable();
  }

  close() {
    this.page.charts.remove(this.chart);
    if (this.partsChart) this.page.charts.remove(this.partsChart);
    this.root.remove();
  }

  get metrics() {
    const parts = this.parts?.open ? this.card.parts.lines ?? this.card.parts.rows : [];
    return [...this.card.lines, ...parts].map(([, metric]) => metric);
  }

  addParts(parts) {
    this.parts = element("details", { parent: this.foot });
    element("summary", { parent: this.parts, text: parts.name });
    this.partsChart = element("div", { parent: this.parts, className: "chart", role: "img", "aria-label": `${parts.name} over time` });
    this.parts.addEventListener("toggle", () => {
      if (!this.parts.open) return this.page.charts.remove(this.partsChart);
      this.page.charts.add(this.partsChart, (theme) => this.partsFigure(theme));
      return this.page.want();
    });
  }

  addTable() {
    const details = element("details", { parent: this.foot });
    element("summary", { parent: details, text: "Table" }).setAttribute("aria-label", `Table of ${this.card.title}`);
    const table = element("table", { parent: element("div", { parent: details, className: "scroll", tabindex: "0", role: "region", "aria-label": `Readings of ${this.card.title}` }) });
    this.columns = element("tr", { parent: element("thead", { parent: table }) });
    this.body = element("tbody", { parent: table });
    details.addEventListener("toggle", () => this.fillTable());
    return details;
  }

  fillTable() {
    const { store } = this.page;
    const headings = ["time", ...this.card.lines.map(([name]) => name)];
    if (this.columns.children.length !== headings.length) {
      this.columns.replaceChildren(...headings.map((text) => element("th", { text, scope: "col" })));
      this.body.replaceChildren();
    }
    const [from, to] = store.range;
    const places = store.times.map((_, at) => at).filter((at) => store.times[at] >= from && store.times[at] <= to);
    const step = Math.max(1, Math.ceil(places.length / TABLE_ROWS));
    const chosen = places.reverse().filter((_, at) => at % step === 0);
    fill(this.body, chosen.map((at) => [
      clock(store.times[at]),
      ...this.card.lines.map(([, metric]) => inUnit(store.column(metric)[at], this.card.unit) || "unknown"),
    ]));
  }

  showLegend() {
    const texts = this.card.lines.length > 1 ? this.card.lines.map(([name, , kind = ""], at) => [`series-${at % 6} ${kind}`, name]) : [];
    for (const { kind, name, value } of this.bars()) texts.push([kind, `${name} ${inUnit(value, this.card.unit)}`]);
    const key = texts.join();
    if (this.legendKey === key) return;
    this.legendKey = key;
    this.legend.replaceChildren(...texts.map(([className, text]) => {
      const item = element("span");
      element("i", { parent: item, className });
      item.append(text);
      return item;
    }));
  }

  limits() {
    const limits = this.page.store.newest?.limits ?? [];
    return [this.card.limit, this.card.otherLimit].flatMap((name) => limits.find((one) => one.limit === name) ?? []);
  }

  // What the limits are now; those of the other limit say that they are of memory.
  bars() {
    return this.limits().flatMap((one) => {
      const of = one.limit === this.card.otherLimit ? "memory " : "";
      const values = { limit: one.limit_value, target: one.target, capacity: one.capacity };
      return Object.entries(values).map(([kind, value]) => ({ kind, name: of + kind, value })).filter((bar) => bar.value !== null);
    });
  }

  figure(theme) {
    const { store } = this.page;
    const [limit] = this.limits();
    return figure({
      unit: this.card.unit, range: this.rangeWith(limit), clock: true, top: this.card.top ?? 0,
      lines: this.lines(this.card.lines),
      bars: this.bars(), forecast: forecastOf(store, limit),
      episodes: this.page.episodes.filter((one) => one.limit === this.card.limit || one.limit === this.card.otherLimit),
    }, theme);
  }

  lines(lines) {
    const { store } = this.page;
    return lines.map(([name, metric, kind]) => ({ name, isArea: kind === AREA, times: store.times, values: store.column(metric) }));
  }

  // A forecast is drawn into the time that has not come yet, a sixth of the width at most.
  rangeWith(limit) {
    const { store } = this.page;
    const [from, to] = store.range;
    const ahead = store.zoom ? 0 : Math.min(limit?.seconds_to_limit ?? 0, (to - from) / 6);
    return [from, to + ahead];
  }

  partsFigure(theme) {
    const { store } = this.page;
    const chart = { unit: this.card.unit, range: store.range, clock: true, top: this.card.top ?? 0 };
    const { lines, rows } = this.card.parts;
    if (lines) return figure({ ...chart, lines: this.lines(lines) }, theme);
    return heatmap(rows.map(([name, metric]) => ({ name, values: store.column(metric) })), store.times, chart, theme);
  }
}

function forecastOf(store, limit) {
  if (!limit || limit.seconds_to_limit === null || limit.capacity === null || limit.value === null || store.zoom) return null;
  const now = store.newest.sampled_at;
  return { times: [now, now + limit.seconds_to_limit], values: [limit.value, limit.capacity] };
}
