// The page: what comes from the API goes into the store, and from there into what is seen.

import { Card, cardsOf } from "./cards.js";
import { Charts, plotly } from "./charts.js";
import { byId, clock, element, sampleAge, say } from "./format.js";
import { Locked, ask, listen, useToken } from "./link.js";
import { Store } from "./store.js";
import { episodesFigure, episodesOf, showEpisodes, showLimits, showReasons, showWorkers } from "./tables.js";
import { WhatIf } from "./what-if.js";

const SPANS = [[60, "1 min"], [300, "5 min"], [900, "15 min"], [3600, "1 h"], [0, "All"]];
const CARD_PIXELS_MIN = 400;
const EPISODES_PAUSE_MS = 1500; // the log is written after the sample

class Page {
  constructor() {
    this.store = new Store(300);
    this.charts = new Charts((range) => this.zoomTo(range));
    this.cards = new Map();
    this.episodes = [];
    this.trouble = "";
    this.receivedAt = 0;
    this.whatIf = new WhatIf(this);
    const timeline = byId("timeline");
    this.charts.add(timeline, (theme) => (this.store.newest ? episodesFigure(this, theme) : null));
    new ResizeObserver(() => this.arrange()).observe(byId("cards"));
    this.addTools();
  }

  start() {
    setInterval(() => {
      this.showAge();
      this.charts.pump();
    }, 500);
    byId("login").addEventListener("submit", (event) => this.unlock(event));
    this.connect();
  }

  async connect() {
    try {
      await listen({
        snapshot: (snapshot) => this.take(snapshot),
        prune: (explanation) => this.explain(explanation),
        stale: (liveness) => this.judge(liveness),
        lost: () => this.mark("the connection to the API is lost; this page tries again"),
      });
    } catch (error) {
      if (!(error instanceof Locked)) throw error;
      this.lock();
    }
  }

  // What is measured

  async take(snapshot) {
    const isFirst = this.store.newest === null || this.store.newest.epoch !== snapshot.epoch;
    this.receivedAt = performance.now();
    this.store.append(snapshot);
    this.mark(snapshot.stale ? this.trouble || "no sampler is alive; try: shm-monitor status" : "");
    byId("empty").hidden = true;
    byId("shown").hidden = false;
    say(byId("name"), snapshot.name);
    this.showCards(snapshot);
    showWorkers(snapshot);
    this.showAge();
    if (!isFirst) return this.charts.changed();
    await Promise.all([this.want(), this.readEpisodes(), plotly()]);
    return undefined;
  }

  showCards(snapshot) {
    const cards = cardsOf(snapshot);
    const keys = new Set(cards.map((one) => one.key));
    for (const [key, card] of this.cards) {
      if (keys.has(key)) continue; // a device that has gone
      card.close();
      this.cards.delete(key);
    }
    for (const one of cards) {
      const known = this.cards.get(one.key);
      if (known) known.show(one);
      else {
        const card = new Card(one, this);
        this.cards.set(one.key, card);
        byId("cards").append(card.root);
      }
    }
    this.arrange();
  }

  // As many columns as fit, and about as many cards in each row: one alone would be drawn as wide as the page.
  arrange() {
    const place = byId("cards");
    const most = Math.max(1, Math.floor(place.clientWidth / CARD_PIXELS_MIN));
    const rows = Math.ceil(this.cards.size / most);
    place.style.setProperty("--columns", Math.ceil(this.cards.size / rows));
  }

  // Read the past of all that is shown.
  async want() {
    if (!this.store.newest) return;
    this.store.wanted = new Set([...this.cards.values()].flatMap((card) => card.metrics));
    if (this.whatIf.choice) this.store.wanted.add(this.whatIf.choice.metric);
    try {
      await this.store.load(this.store.newest);
    } catch (error) {
      if (error instanceof Locked) return; // the stream says so, too
      console.warn("without the past, lines begin now:", error.message);
    }
    await this.charts.drawNow();
  }

  explain(explanation) {
    showReasons(explanation);
    setTimeout(() => this.readEpisodes(), EPISODES_PAUSE_MS);
  }

  async readEpisodes() {
    try {
      this.episodes = episodesOf((await ask("episodes")).episodes);
    } catch {
      return; // there is no log yet
    }
    showEpisodes(this.episodes, this.store.newest?.sampled_at ?? Date.now() / 1000);
    this.charts.changed();
  }

  // Whether it is true now

  judge(liveness) {
    const detail = liveness.detail || `the sampler is ${liveness.state}; try: shm-monitor status`;
    this.mark(liveness.stale ? detail : "");
    byId("empty").hidden = this.store.newest !== null || !liveness.stale;
    say(byId("empty-detail"), detail.replace(/; try: .*$/, ""));
    say(byId("empty-command"), detail.match(/try: (.*)$/)?.[1] ?? "shm-monitor run");
  }

  mark(trouble) {
    const isNews = trouble !== this.trouble;
    this.trouble = trouble;
    this.charts.stopped = trouble !== "";
    byId("banner").hidden = trouble === "" || this.store.newest === null;
    say(byId("banner"), trouble && this.store.newest ? `No sample since ${clock(this.store.newest.sampled_at)}: ${trouble}` : trouble);
    document.body.classList.toggle("old", trouble !== "");
    if (isNews) this.showTools();
    showLimits(this.store.newest?.limits ?? [], trouble !== "");
    this.showAge();
  }

  showAge() {
    const { newest } = this.store;
    this.showVerdict(newest);
    if (newest === null) return;
    say(byId("sample"), sampleAge(newest, (performance.now() - this.receivedAt) / 1000, this.trouble !== ""));
    byId("injected").hidden = newest.injected.length === 0;
    say(byId("injected"), `Injected readings (false on purpose): ${newest.injected.join(", ")}`);
  }

  // What an old sample said is no verdict of now.
  showVerdict(newest) {
    const level = newest === null || this.trouble ? "unknown" : newest.level;
    const waiting = newest === null ? (this.trouble ? "no sampler" : "waiting") : level;
    const text = level !== "unknown" && newest.should_prune ? `${level}: shed work` : waiting;
    say(byId("verdict"), text);
    byId("verdict").className = `badge ${level}`;
    const icon = this.trouble ? "icon-dead.svg" : "icon.svg";
    if (byId("icon").getAttribute("href") !== icon) byId("icon").setAttribute("href", icon);
    document.title = `${text.toUpperCase()} · shm-monitor ${newest?.name ?? ""}`.trim();
  }

  // What part of it is looked at

  addTools() {
    for (const [span, text] of SPANS) {
      const button = element("button", { parent: byId("spans"), type: "button", text, "data-span": span });
      button.addEventListener("click", () => this.look(span));
    }
    byId("live").addEventListener("click", () => this.zoomTo(null));
    byId("closer").addEventListener("click", () => this.zoomBy(0.5, 0));
    byId("wider").addEventListener("click", () => this.zoomBy(2, 0));
    byId("earlier").addEventListener("click", () => this.zoomBy(1, -0.5));
    byId("later").addEventListener("click", () => this.zoomBy(1, 0.5));
    byId("theme").value = localStorage.getItem("theme") ?? "";
    byId("theme").addEventListener("change", (event) => this.dress(event.target.value));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.charts.drawNow());
    this.dress(byId("theme").value);
    this.showTools();
  }

  dress(theme) {
    localStorage.setItem("theme", theme);
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    this.charts.drawNow();
  }

  look(span) {
    Object.assign(this.store, { span, zoom: null });
    this.showTools();
    return this.want();
  }

  zoomBy(factor, shift) {
    const [from, to] = this.store.range;
    const half = (Math.max(to - from, 2) / 2) * factor;
    const middle = (from + to) / 2 + shift * (to - from);
    this.zoomTo([middle - half, middle + half]);
  }

  zoomTo(range) {
    const wasCoarse = this.store.step > 1;
    const wasZoomed = this.store.zoom !== null;
    this.store.zoom = range;
    this.showTools();
    const outside = range && this.store.times.length && range[0] < this.store.times[0];
    if (wasCoarse || outside || (wasZoomed && !range)) this.want();
    else this.charts.drawNow();
  }

  showTools() {
    byId("live").disabled = this.trouble !== "";
    byId("live").setAttribute("aria-pressed", String(this.store.zoom === null && !this.trouble));
    for (const button of byId("spans").children) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.span) === this.store.span && !this.store.zoom));
    }
  }

  // Who may look

  lock() {
    byId("login").hidden = false;
    byId("token").focus();
  }

  unlock(event) {
    event.preventDefault();
    useToken(byId("token").value);
    byId("token").value = "";
    byId("login").hidden = true;
    say(byId("login-told"), "The API refused this token."); // to be seen if the form comes back
    this.connect();
  }
}

new Page().start();
