// The tables of the page, why work is to be shed, and when it was.

import { timeline } from "./figures.js";
import { byId, bytes, clock, day, duration, element, fill, inUnit, percent, say } from "./format.js";

const EPISODES_SHOWN = 50;

export function showReasons(explanation) {
  byId("reasons-part").hidden = explanation.reasons.length === 0;
  byId("reasons").replaceChildren(
    ...explanation.reasons.map((one) => {
      const known = (value) => (value === null ? "unknown" : inUnit(value, one.unit));
      const left = one.seconds_to_limit === null ? "" : `, full in ${duration(one.seconds_to_limit)}`;
      const item = element("li", { className: one.level });
      element("strong", { parent: item, text: `${one.limit}: ${one.reason}` });
      item.append(` at ${known(one.value)}, limit ${known(one.limit_value)}${left}, since ${clock(one.since)}`);
      return item;
    }),
  );
}

// Of an old sample the numbers stay, and what they said of now does not.
export function showLimits(limits, isOld) {
  byId("limits-part").hidden = limits.length === 0;
  fill(
    byId("limits"),
    limits.map((one) => {
      const known = (value) => inUnit(value, one.metric);
      const level = isOld ? "unknown" : { text: one.level, className: one.level };
      return [
        one.limit, level, known(one.value), known(one.mean), known(one.limit_value), known(one.target), known(one.capacity),
        isOld ? "" : duration(one.seconds_to_limit), isOld ? "" : one.reasons.join(", "),
      ];
    }),
  );
}

export function showWorkers(snapshot) {
  const present = [...snapshot.present].sort((a, b) => b.held_bytes - a.held_bytes);
  const { count, processes } = snapshot.workers;
  const process = (pid) => nameOf(processes.find((one) => one.pid === pid));
  byId("present-part").hidden = present.length === 0;
  say(byId("present-count"), String(present.length));
  fill(
    byId("present"),
    present.map((one) => [
      one.pid, process(one.pid), bytes(one.held_bytes), `${one.share.toFixed(1)} x`,
      { text: one.request_bytes ? `${bytes(one.request_bytes)}, round ${one.round_number}` : "", className: one.request_bytes ? "prune" : "" },
    ]),
  );
  byId("processes-part").hidden = processes.length === 0;
  say(byId("processes-count"), String(count ?? processes.length));
  fill(
    byId("processes"),
    processes.map((one) => [
      one.pid, nameOf(one), percent(one.cpu_percent), bytes(one.rss_bytes), one.pss_bytes === null ? "" : bytes(one.pss_bytes),
    ]),
  );
}

// What a process is, and whose where it is another user's; those of shm-monitor itself are faint.
function nameOf(process) {
  const { name = "", user = "" } = process ?? {};
  return { text: user ? `${name} (${user})` : name, className: name.startsWith("shm-monitor") ? "own" : "" };
}

// Episodes out of the events of the log: [{limit, begin, end, level, reasons, peak, unit}], oldest first.
export function episodesOf(events) {
  const found = new Map();
  for (const event of events) {
    const key = `${event.limit} ${event.number} ${event.since}`;
    const one = found.get(key) ?? { limit: event.limit, begin: event.since, end: null, level: "prune", reasons: [], peak: null, unit: event.unit };
    if (event.level === "critical") one.level = "critical";
    if (event.event === "end" || event.event === "lost") one.end = event.time;
    one.reasons = event.reasons.length ? event.reasons : one.reasons;
    one.peak = event.peak ?? one.peak;
    one.injected ||= event.injected;
    found.set(key, one);
  }
  return [...found.values()];
}

export function episodesFigure(page, theme) {
  const { store, episodes } = page;
  const [from, to] = store.range;
  const seen = episodes.filter((one) => one.limit !== "overall" && one.begin < to && (one.end ?? to) > from);
  const names = [...new Set([...(store.newest?.limits ?? []).map((one) => one.limit), ...seen.map((one) => one.limit)])];
  const label = (one) => `${one.limit}: ${one.level} (${one.reasons.join(", ")}), ${lasted(one, to)}`;
  const rows = names.map((name) => ({
    name,
    episodes: seen.filter((one) => one.limit === name).map((one) => ({ ...one, begin: Math.max(one.begin, from), label: label(one) })),
  }));
  return timeline(rows, { unit: "", range: [from, to], clock: true }, theme);
}

const lasted = (one, now) => (one.end === null ? `for ${duration(now - one.begin)} now` : duration(one.end - one.begin));

export function showEpisodes(episodes, now) {
  const rows = episodes.filter((one) => one.limit !== "overall").slice(-EPISODES_SHOWN).reverse();
  byId("no-episodes").hidden = rows.length > 0;
  byId("episodes-part").hidden = rows.length === 0;
  say(byId("episodes-count"), String(rows.length));
  fill(
    byId("episodes"),
    rows.map((one) => [
      `${day(one.begin)} ${clock(one.begin)}`, one.limit, { text: one.level, className: one.level }, one.reasons.join(", "),
      inUnit(one.peak, one.unit), lasted(one, now), one.injected ? "injected" : "",
    ]),
  );
}
