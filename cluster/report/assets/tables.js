"use strict";

// Findings, events and faults in words.

const EVENTS_SHOWN = 300;
const ALIKE_SHOWN = 4;
// Shown when asked for.
const QUIET = ["log.commit", "log.compact", "raft.checkpoint", "transport.open", "transport.closed"];

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function button(text, onclick) {
  const made = element("button", text);
  made.type = "button";
  made.onclick = onclick;
  return made;
}

function showFindings(findings, jump) {
  const list = document.getElementById("findings");
  const worst = ["invalid", "unknown", "valid"];
  const sorted = findings.slice().sort((a, b) => worst.indexOf(a.verdict) - worst.indexOf(b.verdict));
  const alike = new Map(); // those that say the same, beyond a few, come when they are asked for
  for (const finding of sorted) {
    const kind = `${finding.verdict} ${finding.check}`;
    alike.set(kind, (alike.get(kind) || []).concat(finding));
  }
  const add = (finding) => {
    const item = element("li", "", finding.verdict);
    const told = element("span");
    told.append(element("em", finding.check), ` ${finding.sentence}`);
    if (finding.operations.length) told.append(button("show", () => jump(finding)));
    item.append(element("b", finding.verdict), told);
    list.append(item);
    return item;
  };
  for (const group of alike.values()) {
    const later = group.slice(ALIKE_SHOWN);
    const last = group.slice(0, ALIKE_SHOWN).map(add).pop();
    if (!later.length) continue;
    const more = button(`and ${later.length} more`, () => {
      more.remove();
      let after = last;
      for (const item of later.map(add)) { after.after(item); after = item; }
    });
    last.lastChild.append(more);
  }
}

// The longest order that explains a beginning, and what does not fit then.
function showOrder(history, finding, choose) {
  const box = document.getElementById("order");
  box.hidden = !finding.order.length;
  box.textContent = "";
  if (box.hidden) return;
  const count = finding.order.length;
  box.append(element("em", `The longest order that explains a beginning: ${count} operations, and the `
    + `state must be ${finding.state} then. None of those in red can come next.`));
  const list = element("ol");
  const add = (index, className, number) => {
    const [what, where] = operationText(history, index).split("\n");
    const item = element("li", "", className);
    item.append(element("span", what), element("small", where));
    if (number) item.value = number;
    item.onclick = () => choose(index);
    list.append(item);
  };
  finding.order.forEach((index, place) => add(index, "", place + 1));
  finding.operations.forEach((index) => add(index, "stuck", 0));
  box.append(list);
  list.scrollTop = list.scrollHeight;
}

// The events within the shown time, of the kinds that are ticked.
function eventTable(view, events) {
  const kinds = new Map();
  for (const [, , kind] of events) kinds.set(kind, !QUIET.includes(kind));
  const boxes = document.getElementById("kinds");
  const body = document.querySelector("#events tbody");
  let waiting = 0;
  const fill = () => {
    const inside = events.filter(([at, , kind]) => at >= view.from && at <= view.to && kinds.get(kind));
    body.textContent = "";
    for (const [at, node, kind, text] of inside.slice(0, EVENTS_SHOWN)) {
      const row = element("tr");
      row.append(...[seconds(at), node, kind, text].map((cell) => element("td", cell)));
      body.append(row);
    }
    const more = inside.length > EVENTS_SHOWN ? `, the first ${EVENTS_SHOWN} of them here` : "";
    document.getElementById("shown").textContent =
      events.length ? `${inside.length} in the time that is shown${more}` : "nothing";
  };
  for (const kind of [...kinds.keys()].sort()) {
    const label = element("label");
    const box = element("input");
    box.type = "checkbox";
    box.checked = kinds.get(kind);
    box.onchange = () => { kinds.set(kind, box.checked); fill(); };
    label.append(box, ` ${kind}`);
    boxes.append(label);
  }
  view.watch(() => { clearTimeout(waiting); waiting = setTimeout(fill, 120); });
  fill();
}

// Whether a value says nothing but which fault it is: `torn torn=true`, `bridge grudge=bridge`.
function namesItself(fault, [name, value]) {
  return value === true || value === fault.fault;
}

function showPlan(faults, choose) {
  const body = document.querySelector("#plan tbody");
  for (const fault of faults) {
    const row = element("tr", "", fault.took_effect ? "" : "harmless");
    const end = fault.end === null ? "" : seconds(fault.end, 0.01);
    const values = Object.entries(fault.values).filter((pair) => !namesItself(fault, pair))
      .map(([name, value]) => ` ${name}=${value}`).join("");
    const whom = fault.nodes.length ? `${fault.nodes.join(", ")} (${fault.target})` : fault.target;
    const cells = [seconds(fault.begin, 0.01), end, `${fault.fault}${values}`, whom, fault.evidence];
    row.append(...cells.map((cell) => element("td", cell)));
    row.onclick = () => choose(fault);
    body.append(row);
  }
}
