"use strict";

// Joins the drawings: one time for all, one thing that is looked at.

const data = JSON.parse(document.getElementById("data").textContent);

function main() {
  const { run, verdict, faults } = data;
  const view = new View(data.end);
  const focus = { only: null, chosen: null, marked: new Map(), choose };
  const operations = data.operations;

  document.getElementById("strip").className = verdict.verdict;
  document.getElementById("verdict").textContent = verdict.verdict;
  document.getElementById("what").textContent =
    `${run.scenario} on ${run.nodes.length} nodes of ${run.system}, seed ${run.seed}`;
  const effective = faults.filter((fault) => fault.took_effect).length;
  const { ok, fail, info } = verdict.counts;
  document.getElementById("numbers").textContent =
    `${run.began.replace("T", " ").replace("Z", " UTC")} · ${run.seconds} s of trouble · `
    + `${ok.toLocaleString()} answered, ${fail.toLocaleString()} refused, `
    + `${info.toLocaleString()} of which nobody knows · `
    + `${effective} of ${faults.length} faults took effect`;
  document.getElementById("command").textContent = run.command;
  const copy = document.getElementById("copy");
  copy.onclick = async () => {
    await navigator.clipboard.writeText(run.command);
    copy.textContent = "copied";
  };

  function show(from, to) {
    const margin = Math.max((to - from) * 0.6, data.end / 400);
    view.show(from - margin, to + margin);
  }

  function choose(index) {
    focus.chosen = index;
    const box = document.getElementById("chosen");
    box.hidden = false;
    box.textContent = operationText(data, index);
    view.show(view.from, view.to);
  }

  // A finding: its object alone, its operations marked, the time around them.
  function jump(finding) {
    focus.marked = new Map(finding.order.map((index, place) => [index, { place: place + 1 }]));
    for (const index of finding.operations) focus.marked.set(index, { stuck: true });
    const first = finding.operations[0];
    const own = new Set(finding.operations.map((index) => operations.key[index]));
    pick(own.size === 1 ? operations.key[first] : null);
    choose(first);
    showOrder(data, finding, choose);
    const calls = finding.operations.map((index) => operations.called[index]);
    const ends = finding.operations.map((index) => operations.ended[index]);
    show(Math.min(...calls), Math.max(...ends));
    document.getElementById("tools").scrollIntoView({ behavior: "instant", block: "start" });
  }

  const select = document.getElementById("key");
  function pick(place) {
    focus.only = place;
    select.value = place === null ? "" : String(place);
    view.show(view.from, view.to);
  }
  select.append(new Option("all", ""));
  data.keys.forEach((name, place) => select.append(new Option(name || "without a name", String(place))));
  select.onchange = () => pick(select.value === "" ? null : Number(select.value));

  const wrong = verdict.findings.filter((f) => f.verdict === "invalid" && f.operations.length);
  wrong.sort((a, b) => operations.called[a.operations[0]] - operations.called[b.operations[0]]);
  const first = document.getElementById("first-error");
  first.disabled = !wrong.length;
  first.onclick = () => jump(wrong[0]);

  document.getElementById("closer").onclick = () => view.zoom(0.5);
  document.getElementById("farther").onclick = () => view.zoom(2);
  document.getElementById("whole").onclick = () => view.whole();
  view.watch(() => {
    document.getElementById("window").textContent =
      `${seconds(view.from, view.span / 100)} to ${seconds(view.to, view.span / 100)} s`;
  });

  const chooseFault = (fault) => happened(fault) && show(fault.begin, fault.end);
  showFindings(verdict.findings, jump);
  faultChart(view, faults, chooseFault);
  leaderChart(view, run.nodes, data.reigns);
  operationChart(view, data, focus, faults);
  latencyChart(view, data, faults);
  throughputChart(view, data, faults);
  eventTable(view, data.events);
  showPlan(faults, chooseFault);
  view.whole();
}

main();
