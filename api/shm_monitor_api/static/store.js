// The samples that the charts draw: columns over one stretch of time, and what part of it is looked at.

import { ask } from "./link.js";

const VALUES_MAX = 200000; // the API gives 250,000 at once
const SHOWN_SECONDS_MIN = 60;
const POINTS_MAX = 20000;

const GROUPS = {
  memory: (snapshot, level) => snapshot.memory.levels[level],
  gpu: (snapshot, instance) => snapshot.gpus.find((one) => one.instance === instance),
  network: (snapshot, name) => snapshot.network.interfaces[name],
  disk: (snapshot, name) => snapshot.disk.devices[name],
};

// The reading of *metric* in *snapshot*, null for unknown.
export function reading(snapshot, metric) {
  const dot = metric.lastIndexOf(".");
  const field = metric.slice(dot + 1);
  const place = metric.slice(0, dot);
  const colon = place.indexOf(":");
  if (colon < 0) return snapshot[place]?.[field] ?? null;
  const [group, instance] = [place.slice(0, colon), place.slice(colon + 1)];
  if (group === "cpu") return snapshot.cpu.core_percent[instance] ?? null;
  return GROUPS[group]?.(snapshot, instance)?.[field] ?? null;
}

export class Store {
  // *wanted*: the metrics to have. Sets `span` to how many seconds are shown: 0 for the whole ring.
  constructor(span) {
    this.times = [];
    this.columns = new Map();
    this.wanted = new Set();
    this.span = span;
    this.zoom = null; // [from, to] in unix seconds; null follows what is measured
    this.step = 1;
    this.newest = null;
  }

  // The stretch of time to show, in unix seconds.
  get range() {
    if (this.zoom) return this.zoom;
    const end = this.newest?.sampled_at ?? Date.now() / 1000;
    const oldest = Math.min(this.times[0] ?? end, end - SHOWN_SECONDS_MIN);
    return [this.span ? Math.max(end - this.span, oldest) : oldest, end];
  }

  column(metric) {
    return this.columns.get(metric) ?? [];
  }

  // Read the past of all that is wanted, as finely as the API gives it.
  async load(snapshot) {
    const metrics = [...this.wanted];
    const end = snapshot.sampled_at;
    const seconds = this.zoom ? end - this.zoom[0] : this.span;
    const names = `metrics=${encodeURIComponent(metrics.join(","))}`;
    const most = Math.min(VALUES_MAX / Math.max(metrics.length, 1), POINTS_MAX);
    let step = Math.max(1, Math.ceil(seconds / snapshot.interval_seconds / most));
    for (;;) {
      try {
        const limit = seconds ? `&seconds=${seconds + snapshot.interval_seconds}` : "";
        const { times, columns } = await ask(`history?${names}&step=${step}${limit}`);
        this.times = times;
        this.columns = new Map(Object.entries(columns));
        this.step = step;
        return;
      } catch (error) {
        if (error.problem?.status !== 403 || step > 100000) throw error; // a ring that is longer than one answer
        step *= 4;
      }
    }
  }

  append(snapshot) {
    const follows = this.newest === null || snapshot.sequence % this.step === 0;
    this.newest = snapshot;
    if (!follows || (this.times.length && this.times[this.times.length - 1] >= snapshot.sampled_at)) return;
    this.times.push(snapshot.sampled_at);
    for (const metric of this.wanted) {
      let values = this.columns.get(metric);
      if (!values || values.length >= this.times.length) {
        values = new Array(this.times.length - 1).fill(null);
        this.columns.set(metric, values);
      }
      while (values.length < this.times.length - 1) values.push(null);
      values.push(reading(snapshot, metric));
    }
    this.trim(this.span ? snapshot.sampled_at - this.span : 0);
  }

  trim(oldest) {
    let count = Math.max(0, this.times.length - POINTS_MAX);
    while (!this.zoom && count < this.times.length - 2 && this.times[count + 1] < oldest) count += 1;
    if (count < 16) return; // not one by one
    this.times.splice(0, count);
    for (const values of this.columns.values()) values.splice(0, count);
  }
}
