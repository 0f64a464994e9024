"use strict";

// Faults, leaders and operations: bars over time.

const ROW = 17;

// The shades of all faults, behind whatever a drawing shows. However many overlap, it is one shade:
// what is in front must stay readable.
function shade(chart, faults) {
  const shown = faults.filter(happened);
  chart.clipped((context) => {
    for (const effective of [false, true]) {
      context.fillStyle = color(effective ? "fault" : "harmless");
      for (const { begin, end } of joined(shown.filter((fault) => !!fault.took_effect === effective))) {
        const x = chart.x(begin);
        context.fillRect(x, 0, Math.max(1, chart.x(end) - x), chart.height);
      }
    }
  });
}

// The stretches that some of these cover.
function joined(faults) {
  const found = [];
  for (const { begin, end } of faults.slice().sort((a, b) => a.begin - b.begin)) {
    const last = found[found.length - 1];
    if (last && begin <= last.end) last.end = Math.max(last.end, end);
    else found.push({ begin, end });
  }
  return found;
}

function happened(fault) { return fault.end !== null && fault.end > fault.begin; }

// Rows such that nothing in one overlaps.
function rows(items) {
  const ends = [];
  return items.map((item) => {
    let row = ends.findIndex((end) => end <= item.begin);
    if (row < 0) row = ends.push(0) - 1;
    ends[row] = item.end;
    return { item, row };
  });
}

function bar(chart, begin, end, y, height, fill) {
  const x = chart.x(begin);
  const width = Math.max(1.5, chart.x(end) - x);
  if (x + width < LEFT || x > chart.width) return;
  chart.context.fillStyle = fill;
  chart.context.fillRect(x, y, width, height);
}

function within(chart, begin, end, text, y) {
  const x = Math.max(LEFT, chart.x(begin));
  const room = Math.min(chart.x(end), chart.width - RIGHT) - x - 8;
  if (room < 22) return;
  chart.context.fillStyle = color("ink");
  chart.context.textAlign = "left";
  const fits = Math.floor(room / 6.4);
  chart.context.fillText(text.length > fits ? `${text.slice(0, fits - 1)}…` : text, x + 4, y);
}

function faultChart(view, faults, choose) {
  const placed = rows(faults.filter(happened));
  const height = 22 + ROW * Math.max(1, ...placed.map((p) => p.row + 1));
  const paint = (chart) => {
    const { step, at } = ticks(view.from, view.to, chart.width / 110);
    for (const time of at) {
      chart.context.fillStyle = color("soft");
      chart.context.textAlign = "center";
      chart.context.fillText(`${seconds(time, step)} s`, chart.x(time), 9);
    }
    chart.label("faults", 22 + ROW / 2);
    chart.clipped((context) => {
      for (const { item, row } of placed) {
        const y = 20 + row * ROW;
        bar(chart, item.begin, item.end, y, ROW - 2, color(item.took_effect ? "fault" : "harmless"));
        bar(chart, item.begin, item.begin, y, ROW - 2,
            color(item.took_effect ? "fault-edge" : "soft"));
        within(chart, item.begin, item.end, `${item.fault} ${item.nodes.join(", ")}`, y + ROW / 2 - 1);
      }
    });
  };
  const find = (time, y) => {
    const row = Math.floor((y - 20) / ROW);
    const hit = placed.find((p) => p.row === row && p.item.begin <= time && time <= p.item.end);
    return hit && { text: faultText(hit.item), choose: () => choose(hit.item) };
  };
  return new Chart("faults", view, height, paint, find);
}

function faultText(fault) {
  const values = Object.entries(fault.values).map(([name, value]) => ` ${name}=${value}`).join("");
  return `${fault.fault} ${fault.nodes.join(", ")}${values}\n`
    + `${seconds(fault.begin)} to ${seconds(fault.end)} s\n${fault.evidence}`;
}

function leaderChart(view, nodes, reigns) {
  const paint = (chart) => {
    nodes.forEach((node, row) => chart.label(node, 4 + row * ROW + ROW / 2));
    chart.clipped(() => {
      for (const reign of reigns) {
        const y = 4 + nodes.indexOf(reign.node) * ROW;
        const hue = (reign.term * 47) % 360;
        bar(chart, reign.begin, reign.end, y + 1, ROW - 3, `hsl(${hue} 45% 55% / .55)`);
        within(chart, reign.begin, reign.end, `term ${reign.term}`, y + ROW / 2);
      }
    });
  };
  const find = (time, y) => {
    const node = nodes[Math.floor((y - 4) / ROW)];
    const reign = reigns.find((r) => r.node === node && r.begin <= time && time <= r.end);
    return reign && {
      text: `${node} leads in term ${reign.term}\n${seconds(reign.begin)} to ${seconds(reign.end)} s`,
    };
  };
  return new Chart("leaders", view, 8 + nodes.length * ROW, paint, find);
}

const OUTCOMES = ["ok", "fail", "info"];

// The state of what is looked at: `only` a key, the `chosen` operation, and the operations that a
// finding is about: `explained` by an order (with their places in it), and `stuck`.
function operationChart(view, history, focus, faults) {
  const { lane, called, ended, outcome, key } = history.operations;
  const height = 10 + history.lanes * ROW;
  const drawn = (index) => focus.only === null || key[index] === focus.only;
  const paint = (chart) => {
    shade(chart, faults);
    chart.label("clients", 10);
    const many = (view.to - view.from) / view.end * called.length > 4000;
    chart.clipped((context) => {
      const fills = OUTCOMES.map(color);
      const soft = color("line");
      const last = new Map(); // where there are more than pixels, one of each pixel is enough
      for (let i = 0; i < called.length; i++) {
        if (ended[i] < view.from || called[i] > view.to) continue;
        const y = 5 + lane[i] * ROW;
        if (many && !focus.marked.has(i)) {
          const place = Math.round(chart.x(called[i]));
          const before = last.get(lane[i]);
          if (before && before[0] === place && before[1] === outcome[i]) continue;
          last.set(lane[i], [place, outcome[i]]);
        }
        bar(chart, called[i], ended[i], y, ROW - 3, drawn(i) ? fills[outcome[i]] : soft);
      }
      for (const [index, mark] of focus.marked) {
        const y = 5 + lane[index] * ROW;
        bar(chart, called[index], ended[index], y, ROW - 3, color(mark.stuck ? "wrong" : "explained"));
        if (mark.place) within(chart, called[index], ended[index], String(mark.place), y + ROW / 2 - 1);
      }
      if (focus.chosen !== null) {
        const i = focus.chosen;
        const x = chart.x(called[i]);
        context.strokeStyle = color("ink");
        context.lineWidth = 2;
        context.strokeRect(x - 1, 4 + lane[i] * ROW, Math.max(4, chart.x(ended[i]) - x + 2), ROW - 1);
      }
    });
  };
  const find = (time, y) => {
    const row = Math.floor((y - 5) / ROW);
    const near = view.span / 250;
    let best = null;
    for (let i = 0; i < called.length; i++) {
      if (lane[i] !== row || !drawn(i)) continue;
      const away = Math.max(called[i] - time, time - ended[i], 0);
      if (away <= near && (best === null || away < best[0])) best = [away, i];
    }
    return best && { text: operationText(history, best[1]), choose: () => focus.choose(best[1]) };
  };
  return new Chart("operations", view, height, paint, find);
}

function operationText(history, index) {
  const o = history.operations;
  const what = [history.words[o.f[index]], history.keys[o.key[index]], o.value[index]];
  const outcome = ["", "refused", "nobody knows what became of it"][o.outcome[index]];
  // A write that answers null has been done; a read that does has found nothing.
  const answer = o.result[index] === "null" && o.value[index] !== "" ? "" : o.result[index];
  return `${what.filter((word) => word !== "").join(" ")} → ${answer || outcome || "done"}\n`
    + `operation ${index} of process ${o.process[index]}, at ${seconds(o.called[index], 1e-5)} s, for `
    + `${duration(o.ended[index] - o.called[index])}`;
}
