// Draw charts with plotly.js, as often as drawing is cheap: a page that is left open must not heat a machine that
// somebody else trains on. Without plotly.js there are tables, and lines without axes.

import { OPTIONS, THEMES, fromAxis, onAxis } from "./figures.js";
import { element } from "./format.js";

const ALLOWED = 0.016; // of the time is spent on drawing while nobody does anything: 4.9 % of a core in all, 5.4 by 0.02
const SAVED_MS = 60; // what of it can be saved up
const SVG = "http://www.w3.org/2000/svg";

let library = null; // a promise of plotly.js

// Load plotly.js when first asked; resolves to it, or to null where it is not installed.
export function plotly() {
  library ??= new Promise((resolve) => {
    const path = document.body.dataset.plotly;
    if (!path) return resolve(null);
    const script = element("script", { src: path });
    script.onload = () => resolve(globalThis.Plotly ?? null);
    script.onerror = () => {
      document.body.dataset.plotly = ""; // installed, but it does not come
      resolve(null);
    };
    document.head.append(script);
    return undefined;
  });
  return library;
}

export function theme() {
  const chosen = document.documentElement.dataset.theme;
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  return THEMES[dark ? "dark" : "light"];
}

export class Charts {
  // *onZoom* is called with [from, to] in unix seconds.
  constructor(onZoom) {
    this.onZoom = onZoom;
    this.places = new Map(); // element -> what draws it
    this.dirty = new Set();
    this.visible = new Set();
    this.stopped = false;
    this.pointer = null; // the chart that it is over, and where in the window
    this.saved = SAVED_MS;
    this.savedAt = performance.now();
    this.observer = new IntersectionObserver((entries) => this.see(entries), { rootMargin: "80px" });
    document.addEventListener("visibilitychange", () => this.pump());
  }

  // Draw what *figureOf* gives into *place* from now on.
  add(place, figureOf) {
    this.places.set(place, figureOf);
    this.dirty.add(place);
    this.observer.observe(place);
    place.onpointermove = (event) => this.point({ place, x: event.clientX });
    place.onpointerleave = () => this.point(null);
  }

  remove(place) {
    this.observer.unobserve(place);
    this.places.delete(place);
    this.dirty.delete(place);
    this.visible.delete(place);
    globalThis.Plotly?.purge(place);
  }

  see(entries) {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) this.visible.add(target);
      else this.visible.delete(target);
    }
    this.drawNow(entries.filter((one) => one.isIntersecting).map((one) => one.target));
  }

  // There is something new to draw in all of them.
  changed() {
    if (this.stopped) return;
    for (const place of this.places.keys()) this.dirty.add(place);
    this.pump();
  }

  // Draw what is to be drawn, as far as the allowance goes; who waits longest comes first.
  pump() {
    const now = performance.now();
    this.saved = Math.min(SAVED_MS, this.saved + (now - this.savedAt) * ALLOWED);
    this.savedAt = now;
    if (document.hidden || this.stopped) return;
    for (const place of [...this.dirty]) {
      if (this.saved <= 0) return;
      if (!this.visible.has(place)) continue;
      const begin = performance.now();
      this.draw(place);
      this.saved -= performance.now() - begin;
    }
  }

  // Somebody did something and looks at it: draw at once whatever it costs.
  async drawNow(places = [...this.places.keys()]) {
    await plotly();
    for (const place of places) {
      if (!this.places.has(place)) continue;
      this.dirty.add(place);
      if (this.visible.has(place)) this.draw(place);
    }
  }

  draw(place) {
    const figureOf = this.places.get(place);
    if (!figureOf || (!globalThis.Plotly && document.body.dataset.plotly)) return;
    this.dirty.delete(place);
    const figure = figureOf(theme());
    if (!figure) return;
    if (!globalThis.Plotly) return sketch(place, figure);
    const isNew = !place.classList.contains("js-plotly-plot");
    place.style.height = `${figure.layout.height}px`; // a window that changes its size asks for it
    globalThis.Plotly.react(place, figure.data, figure.layout, OPTIONS);
    if (this.pointer) this.point(this.pointer); // its labels are gone, and the axis has moved
    if (isNew) this.listen(place);
    return undefined;
  }

  listen(place) {
    place.on("plotly_relayout", (change) => {
      const range = change["xaxis.range"] ?? [change["xaxis.range[0]"], change["xaxis.range[1]"]];
      if (range[0] !== undefined) this.onZoom(range.map((one) => fromAxis(one, true)));
    });
    place.on("plotly_doubleclick", () => this.onZoom(null));
  }

  // The moment under the *pointer* in all charts, once a frame: a line across each, and what was read then.
  point(pointer) {
    this.pointer = pointer;
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => {
      const moment = pointer && momentAt(pointer);
      for (const place of this.visible) {
        cross(place, moment);
        if (place.layout?.hovermode !== "x unified") continue;
        if (moment === null) globalThis.Plotly.Fx.unhover(place);
        else globalThis.Plotly.Fx.hover(place, { xval: onAxis(moment, true) });
      }
    });
  }
}

// The time axis of *place*: where it begins, how long it is, in pixels, and its ends, in unix seconds.
function axisOf(place) {
  const { margin, xaxis } = place.layout;
  const [from, to] = xaxis.range.map((one) => fromAxis(one, true));
  return { begin: margin.l, length: place.clientWidth - margin.l - margin.r, from, to };
}

// The moment at *x* of the window in *place*; null beside the axis.
function momentAt({ place, x }) {
  if (!place.layout) return null;
  const { begin, length, from, to } = axisOf(place);
  const share = (x - place.getBoundingClientRect().left - begin) / length;
  return share < 0 || share > 1 ? null : from + share * (to - from);
}

// Draw the line of *moment* across *place*, or none where *place* does not show that moment.
function cross(place, moment) {
  if (!place.layout) return;
  const line = place.querySelector(":scope > .crosshair") ?? element("i", { parent: place, className: "crosshair" });
  const { begin, length, from, to } = axisOf(place);
  line.hidden = moment === null || moment < from || moment > to;
  if (line.hidden) return;
  const { t, b } = place.layout.margin;
  Object.assign(line.style, { left: `${begin + (length * (moment - from)) / (to - from)}px`, top: `${t}px`, bottom: `${b}px` });
}

// Lines alone, where there is no plotly.js; unknown samples leave a gap.
function sketch(place, figure) {
  const [from, to] = figure.layout.xaxis.range;
  const top = figure.layout.yaxis.range?.[1] ?? 1;
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", "0 0 100 30");
  picture.setAttribute("preserveAspectRatio", "none");
  for (const line of figure.data.filter((one) => one.type === "scatter")) {
    const path = document.createElementNS(SVG, "path");
    let pen = "M";
    let text = "";
    line.x.forEach((x, at) => {
      if (line.y[at] === null) pen = "M";
      else {
        text += `${pen}${((100 * (x - from)) / (to - from)).toFixed(2)} ${(29 - (28 * line.y[at]) / top).toFixed(2)}`;
        pen = "L";
      }
    });
    path.setAttribute("d", text);
    path.setAttribute("stroke", line.line.color);
    picture.append(path);
  }
  place.replaceChildren(picture);
}
