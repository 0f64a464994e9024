"use strict";

// The stretch of time that is shown, the same in all drawings: seconds since the run began.
class View {
  constructor(end) {
    this.end = Math.max(end, 0.001);
    this.watchers = [];
    this.from = 0;
    this.to = this.end;
  }

  get span() { return this.to - this.from; }

  watch(redraw) { this.watchers.push(redraw); }

  show(from, to) {
    const span = Math.min(Math.max(to - from, this.end / 50000, 1e-5), this.end);
    this.from = Math.min(Math.max(from, 0), this.end - span);
    this.to = this.from + span;
    for (const redraw of this.watchers) redraw();
  }

  // Closer (factor < 1) or farther, so that the moment `at` stays where it is.
  zoom(factor, at = (this.from + this.to) / 2) {
    const span = Math.min(this.span * factor, this.end);
    const share = (at - this.from) / this.span;
    this.show(at - share * span, at + (1 - share) * span);
  }

  along(seconds) { this.show(this.from + seconds, this.to + seconds); }

  whole() { this.show(0, this.end); }
}

const LEFT = 74; // pixels for names and numbers, left of each drawing
const RIGHT = 12;

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// One drawing over the time of a view. `paint(chart)` draws it; `find(time, y, chart)` says what
// lies there, as {text, choose}, or nothing.
class Chart {
  constructor(id, view, height, paint, find = () => null) {
    this.canvas = document.getElementById(id);
    this.view = view;
    this.height = height;
    this.paint = paint;
    this.find = find;
    this.context = this.canvas.getContext("2d");
    view.watch(() => this.later());
    new ResizeObserver(() => this.later()).observe(this.canvas.parentElement);
    this.listen();
  }

  get width() { return this.canvas.parentElement.clientWidth; }

  x(time) {
    return LEFT + (time - this.view.from) / this.view.span * (this.width - LEFT - RIGHT);
  }

  time(x) {
    return this.view.from + (x - LEFT) / (this.width - LEFT - RIGHT) * this.view.span;
  }

  // However many changes: one drawing a frame.
  later() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.draw(); });
  }

  draw() {
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = this.width * ratio;
    this.canvas.height = this.height * ratio;
    this.canvas.style.height = `${this.height}px`;
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.context.font = "12px system-ui, 'DejaVu Sans', sans-serif";
    this.context.textBaseline = "middle";
    this.paint(this);
  }

  // Draws within the time's part of the canvas only.
  clipped(draw) {
    this.context.save();
    this.context.beginPath();
    this.context.rect(LEFT, 0, this.width - LEFT - RIGHT, this.height);
    this.context.clip();
    draw(this.context);
    this.context.restore();
  }

  label(text, y, name = "soft") {
    this.context.fillStyle = color(name);
    this.context.textAlign = "right";
    this.context.fillText(text, LEFT - 8, y, LEFT - 12);
  }

  // A line across at each of some heights, named on the left.
  grid(lines) {
    for (const [y, text] of lines) {
      this.context.fillStyle = color("line");
      this.context.fillRect(LEFT, Math.round(y), this.width - LEFT - RIGHT, 1);
      this.label(text, y);
    }
  }

  listen() {
    const canvas = this.canvas;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        this.view.along((event.deltaX || event.deltaY) / 600 * this.view.span);
      } else {
        this.view.zoom(Math.exp(event.deltaY / 400), this.time(event.offsetX));
      }
    }, { passive: false });
    let held = null;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      held = { x: event.offsetX, moved: 0 };
    });
    canvas.addEventListener("pointermove", (event) => {
      if (held) {
        const by = this.time(held.x) - this.time(event.offsetX);
        held.moved += Math.abs(event.offsetX - held.x);
        held.x = event.offsetX;
        this.view.along(by);
      }
      const found = this.find(this.time(event.offsetX), event.offsetY, this);
      tell(found && found.text, event.clientX, event.clientY);
    });
    canvas.addEventListener("pointerup", (event) => {
      const clicked = held && held.moved < 4;
      held = null;
      const found = clicked && this.find(this.time(event.offsetX), event.offsetY, this);
      if (found && found.choose) found.choose();
    });
    canvas.addEventListener("pointerleave", () => tell(null));
    canvas.addEventListener("dblclick", () => this.view.whole());
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.2, ArrowRight: 0.2 }[event.key];
      if (step) this.view.along(step * this.view.span);
      else if (event.key === "+") this.view.zoom(0.6);
      else if (event.key === "-") this.view.zoom(1 / 0.6);
      else if (event.key === "0") this.view.whole();
      else return;
      event.preventDefault();
    });
  }
}

// What lies under the pointer.
function tell(text, x = 0, y = 0) {
  const tip = document.getElementById("tip");
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const right = x + 16 + tip.offsetWidth > window.innerWidth;
  tip.style.left = `${right ? x - 12 - tip.offsetWidth : x + 16}px`;
  tip.style.top = `${Math.min(y + 14, window.innerHeight - tip.offsetHeight - 6)}px`;
}

// Round moments of a stretch of time, about so many.
function ticks(from, to, wanted) {
  const raw = (to - from) / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw);
  const found = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) found.push(at);
  return { step, at: found };
}

function seconds(time, step = 0.001) {
  const digits = Math.min(6, Math.max(0, Math.ceil(-Math.log10(step))));
  return time.toFixed(digits);
}

function duration(time) {
  if (time >= 1) return `${time.toFixed(2)} s`;
  return time >= 0.001 ? `${(time * 1e3).toFixed(1)} ms` : `${(time * 1e6).toFixed(0)} µs`;
}
