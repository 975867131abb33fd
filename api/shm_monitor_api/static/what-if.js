// What if? Other settings over the samples of the ring, decided by the server with the kernels of the sampler.

import { Refused, ask } from "./link.js";
import { figure } from "./figures.js";
import { byId, duration, element, fill, inUnit, say } from "./format.js";

const MB = 2 ** 20;
const PAUSE_MS = 250; // after a slider has moved

// What each limit is called as a setting, and the ends of its slider.
function choices(snapshot) {
  const memory = snapshot.limits.filter((one) => one.limit.startsWith("memory") && one.capacity !== null);
  const inner = memory.find((one) => /:\d/.test(one.limit)) ?? memory[0];
  const found = [];
  if (inner) {
    const capacity = inner.capacity / MB;
    found.push({ setting: "max_memory_usage_mb", name: "Memory", unit: "bytes", factor: MB, limit: inner.limit, metric: inner.metric, max: capacity, step: capacity / 200, value: inner.limit_value / MB });
  }
  const value = (name) => snapshot.limits.find((one) => one.limit === name)?.limit_value;
  found.push({ setting: "max_cpu_usage_percent", name: "CPU", unit: "percent", factor: 1, limit: "cpu", metric: "cpu.cpu_percent", max: 100, step: 1, value: value("cpu") ?? 90 });
  const speed = Math.max(snapshot.rolled["network.usage_bytes_per_second"]?.maximum ?? 0, value("network") ?? 0, MB) * 1.5;
  found.push({ setting: "max_network_usage_bytes_per_second", name: "Network", unit: "bytes_per_second", factor: 1, limit: "network", metric: "network.usage_bytes_per_second", max: Math.round(speed), step: Math.ceil(speed / 200), value: value("network") ?? Math.round(speed) });
  const gpu = snapshot.gpus[0]?.instance;
  if (gpu !== undefined) {
    found.push({ setting: "max_gpu_memory_percent", name: "Memory of GPUs", unit: "percent", factor: 1, limit: `gpu-memory:${gpu}`, metric: `gpu:${gpu}.memory_percent`, max: 100, step: 1, value: value(`gpu-memory:${gpu}`) ?? 90 });
    found.push({ setting: "max_gpu_usage_percent", name: "Utilization of GPUs", unit: "percent", factor: 1, limit: `gpu:${gpu}`, metric: `gpu:${gpu}.utilization_percent`, max: 100, step: 1, value: value(`gpu:${gpu}`) ?? 95 });
  }
  return found;
}

const OTHERS = {
  target_utilization: { name: "Target", text: (value) => `${(100 * value).toFixed(0)} % of the limit` },
  observation_period: { name: "Period", text: duration },
  forecast_horizon: { name: "Horizon", text: duration },
};

export class WhatIf {
  constructor(page) {
    this.page = page;
    this.touched = new Map(); // setting -> value
    this.answer = null;
    this.place = byId("what-if-chart");
    this.place.classList.add("chart");
    byId("what-if").addEventListener("toggle", () => this.opened());
    byId("what-if-limit").addEventListener("change", () => this.choose());
    byId("what-if-reset").addEventListener("click", () => this.reset());
    byId("what-if-copy").addEventListener("click", () => this.copy());
    for (const input of byId("what-if-form").querySelectorAll("input")) input.addEventListener("input", () => this.moved(input));
  }

  get choice() {
    return this.choices?.[byId("what-if-limit").selectedIndex];
  }

  opened() {
    if (!byId("what-if").open) return this.page.charts.remove(this.place);
    const { newest } = this.page.store;
    if (newest && !this.choices) {
      this.choices = choices(newest);
      byId("what-if-limit").replaceChildren(...this.choices.map((one) => element("option", { text: one.name })));
      this.choose();
    }
    this.page.charts.add(this.place, (theme) => this.figure(theme));
    return this.ask();
  }

  choose() {
    for (const one of this.choices) this.touched.delete(one.setting);
    const input = byId("what-if-value");
    const { max, step, value } = this.choice;
    Object.assign(input, { min: step, max, step, value });
    byId("observation_period").min = this.page.store.newest.interval_seconds;
    this.tell();
    this.page.want();
    this.ask();
  }

  reset() {
    this.touched.clear();
    this.choose();
  }

  moved(input) {
    const setting = input.dataset.setting ?? this.choice.setting;
    this.touched.set(setting, rounded(Number(input.value)));
    this.tell();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), PAUSE_MS);
  }

  // What the sliders stand for.
  tell() {
    const { choice } = this;
    say(byId("what-if-value-text"), inUnit(Number(byId("what-if-value").value) * choice.factor, choice.unit));
    for (const [setting, { text }] of Object.entries(OTHERS)) {
      say(byId(`${setting}-text`), text(Number(byId(setting).value)));
    }
  }

  async ask() {
    this.abort?.abort();
    this.abort = new AbortController();
    const query = new URLSearchParams([...this.touched].map(([key, value]) => [key, String(value)]));
    try {
      this.answer = await ask(`replay?${query}`, this.abort.signal);
      for (const setting of Object.keys(OTHERS)) {
        if (!this.touched.has(setting)) byId(setting).value = this.answer.settings[setting];
      }
      this.tell();
      this.show();
    } catch (error) {
      if (error instanceof Refused) say(byId("what-if-told"), error.message);
      else if (error.name !== "AbortError") throw error;
    }
  }

  show() {
    const { was, would, env } = this.answer;
    const set = would.limits.filter((one) => one.limit !== null || one.name === "overall");
    const rows = set.map((one) => [one, was.limits.find((other) => other.name === one.name)]);
    const [all] = rows;
    say(byId("what-if-told"), `Current settings: ${times(all[1])}. These settings: ${times(all[0])}.`);
    fill(byId("what-if-rows"), rows.map(([after, before]) => [after.name, before ? times(before) : "no limit", times(after)]));
    say(byId("what-if-env"), env.join("\n") || "# move a slider");
    this.page.charts.drawNow([this.place]);
  }

  figure(theme) {
    const { choice, answer } = this;
    const { store } = this.page;
    if (!answer || !choice) return null;
    const begin = answer.begin_time;
    const found = (report) => report.limits.find((one) => one.name === choice.limit);
    const episodes = (report) => (found(report)?.episodes ?? []).map((one) => ({
      begin: one.begin_time, end: one.end_seconds === null ? begin + report.seconds : begin + one.end_seconds, level: one.level,
    }));
    const limit = found(answer.would)?.limit ?? null;
    return figure({
      unit: choice.unit, range: [Math.max(begin, store.times[0] ?? begin), begin + answer.would.seconds], clock: true, height: 260,
      lines: [{ name: choice.name, times: store.times, values: store.column(choice.metric) }],
      bars: [
        { kind: "limit", value: limit }, { kind: "target", value: limit === null ? null : limit * answer.settings.target_utilization },
      ],
      episodes: episodes(answer.would),
      strips: [{ name: "current", color: "was", episodes: episodes(answer.was) }, { name: "these", color: "would", episodes: episodes(answer.would) }],
    }, theme);
  }

  async copy() {
    const text = byId("what-if-env").textContent;
    try {
      await navigator.clipboard.writeText(text);
      say(byId("what-if-copied"), "copied");
    } catch {
      getSelection().selectAllChildren(byId("what-if-env")); // no clipboard without https: it is selected instead
      say(byId("what-if-copied"), "selected: press Ctrl-C");
    }
  }
}

function times(limit) {
  const count = limit.episodes.length;
  const seconds = limit.seconds_at.prune + limit.seconds_at.critical;
  return count ? `${count} ${count === 1 ? "episode" : "episodes"}, ${duration(seconds)}` : "no episode";
}

const rounded = (value) => Number(value.toPrecision(4));
