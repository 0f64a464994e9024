"use strict";

// How long answers took, and how many there were, with the faults behind.

const DECADES = [[1e-5, "10 µs"], [1e-4, "100 µs"], [1e-3, "1 ms"], [1e-2, "10 ms"], [0.1, "100 ms"],
                 [1, "1 s"], [10, "10 s"]];
const BUCKETS = 120; // of the shown time

function latencyChart(view, history, faults) {
  const { called, ended, outcome } = history.operations;
  const took = called.map((time, i) => Math.max(1e-5, ended[i] - time));
  const lowest = Math.max(1e-5, 10 ** Math.floor(Math.log10(took.reduce((a, b) => Math.min(a, b), 1))));
  const highest = 10 ** Math.ceil(Math.log10(took.reduce((a, b) => Math.max(a, b), lowest * 10)));
  const height = 170;
  const y = (value) => 10 + (height - 20) * (1 - Math.log(value / lowest) / Math.log(highest / lowest));
  const paint = (chart) => {
    shade(chart, faults);
    chart.grid(DECADES.filter(([v]) => v >= lowest && v <= highest).map(([v, text]) => [y(v), text]));
    chart.clipped((context) => {
      const fills = OUTCOMES.map(color);
      for (let i = 0; i < called.length; i++) {
        if (called[i] < view.from || called[i] > view.to) continue;
        context.fillStyle = fills[outcome[i]];
        context.globalAlpha = outcome[i] ? 0.9 : 0.4;
        context.fillRect(chart.x(called[i]) - 1, y(took[i]) - 1, 2.5, 2.5);
      }
      context.globalAlpha = 1;
      for (const [share, name] of [[0.5, "ink"], [0.99, "wrong"]]) {
        line(chart, percentiles(view, called, took, outcome, share), y, name);
      }
    });
    chart.context.textAlign = "left";
    chart.context.fillStyle = color("ink");
    chart.context.fillText("p50", LEFT + 6, 14);
    chart.context.fillStyle = color("wrong");
    chart.context.fillText("p99", LEFT + 36, 14);
  };
  const find = (time) => {
    const inside = bucket(view, time);
    const times = answered(called, took, outcome, inside.from, inside.to);
    if (!times.length) return null;
    return {
      text: `${seconds(inside.from)} to ${seconds(inside.to)} s: ${times.length} answers\n`
        + `p50 ${duration(at(times, 0.5))}, p99 ${duration(at(times, 0.99))}, `
        + `longest ${duration(times[times.length - 1])}`,
    };
  };
  return new Chart("latency", view, height, paint, find);
}

// The part of the shown time in which a moment lies.
function bucket(view, time) {
  const width = view.span / BUCKETS;
  const from = view.from + Math.floor((time - view.from) / width) * width;
  return { from, to: from + width };
}

function answered(called, took, outcome, from, to) {
  const times = [];
  for (let i = 0; i < called.length; i++) {
    if (!outcome[i] && called[i] >= from && called[i] < to) times.push(took[i]);
  }
  return times.sort((a, b) => a - b);
}

function at(sorted, share) { return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]; }

function percentiles(view, called, took, outcome, share) {
  const found = [];
  const parts = Array.from({ length: BUCKETS / 2 }, () => []);
  const width = view.span / parts.length;
  for (let i = 0; i < called.length; i++) {
    const place = Math.floor((called[i] - view.from) / width);
    if (!outcome[i] && place >= 0 && place < parts.length) parts[place].push(took[i]);
  }
  parts.forEach((times, place) => {
    times.sort((a, b) => a - b);
    found.push([view.from + (place + 0.5) * width, times.length ? at(times, share) : null]);
  });
  return found;
}

// A line through points; where there is none it is broken.
function line(chart, points, y, name) {
  const context = chart.context;
  context.strokeStyle = color(name);
  context.lineWidth = 1.5;
  context.beginPath();
  let begun = false;
  for (const [time, value] of points) {
    if (value === null) { begun = false; continue; }
    if (begun) context.lineTo(chart.x(time), y(value));
    else context.moveTo(chart.x(time), y(value));
    begun = true;
  }
  context.stroke();
}

function throughputChart(view, history, faults) {
  const { ended, outcome } = history.operations;
  const height = 120;
  const counted = () => {
    const width = view.span / BUCKETS;
    const counts = OUTCOMES.map(() => new Array(BUCKETS).fill(0));
    for (let i = 0; i < ended.length; i++) {
      const place = Math.floor((ended[i] - view.from) / width);
      if (place >= 0 && place < BUCKETS) counts[outcome[i]][place] += 1 / width;
    }
    return { width, counts };
  };
  const paint = (chart) => {
    shade(chart, faults);
    const { width, counts } = counted();
    const highest = Math.max(1e-9, ...counts[0].map((n, i) => n + counts[1][i] + counts[2][i]));
    const y = (value) => height - 6 - (height - 18) * value / highest;
    chart.grid(ticks(0, highest, 3).at.map((rate) => [y(rate), `${+rate.toPrecision(3)}/s`]));
    chart.clipped((context) => {
      for (let place = 0; place < BUCKETS; place++) {
        let below = 0;
        for (let kind = 0; kind < counts.length; kind++) {
          const rate = counts[kind][place];
          if (!rate) continue;
          const begin = view.from + place * width;
          context.fillStyle = color(OUTCOMES[kind]);
          const x = chart.x(begin);
          context.fillRect(x, y(below + rate), chart.x(begin + width) - x - 0.5, y(below) - y(below + rate));
          below += rate;
        }
      }
    });
  };
  const find = (time) => {
    const { width, counts } = counted();
    const place = Math.floor((time - view.from) / width);
    if (place < 0 || place >= BUCKETS) return null;
    const rates = counts.map((kind) => kind[place].toFixed(0));
    return { text: `${rates[0]} answered, ${rates[1]} refused, ${rates[2]} given up, each second` };
  };
  return new Chart("throughput", view, height, paint, find);
}
