"use strict";
// The backward sweep, step by step: what comes to h_t, what goes on from it, and what W_hh has got so far.

const Sweep = (() => {
  const { number } = Draw;
  const $ = (id) => document.getElementById(id);
  const PACE = 700; // ms a step, when it plays
  let timer = 0;

  function show(answer, at) {
    const { g, direct, carried, cells, uses, sofar } = answer.sweep;
    const T = g.length;
    const norm = (v) => v.some((x) => x === null) ? null : Math.hypot(...v);
    const h = (t) => `h<sub>${t === -1 ? "−1" : t}</sub>`;
    const entries = {
      loss: [`from the loss L<sub>${at}</sub>`, direct[at] === 0 ? "0, as it has none" : number(direct[at])],
      later: at < T - 1 ? [`from step ${at + 1}`, number(carried[at])] : ["from the future", "0, as it is the last step"],
      sum: [`|dL/d${h(at)}|, of their sum`, number(norm(g[at])) + (cells ? ` <small>and |dL/dc<sub>${at}</sub>| = ${number(cells[at])}, along the memory</small>` : "")],
      earlier: at > 0 ? [`on to ${h(at - 1)}`, number(carried[at - 1])] : [`on to ${h(-1)}`, "a constant: the end"],
      use: [`to W<sub>hh</sub>, for step ${at}`, number(uses[at])],
      sofar: ["W<sub>hh</sub> has so far", number(sofar[at])],
    };
    Views.set("flows", `<dl class="flows">${Object.entries(entries).map(([kind, [name, value]]) =>
      `<div class="${kind}"><dt>${name}</dt><dd>${value}</dd></div>`).join("")}</dl>`);
    $("at").setAttribute("aria-valuetext", `step ${at}: |dL/dh| = ${number(norm(g[at]))}`);
    $("back").disabled = at === 0;
    $("later").disabled = at === T - 1;
    const largest = Views.most(g);
    Draw.states($("sweep"), "g", {
      caption: `dL/dh<sub>t</sub>, unit by unit <small>(${at === 0 ? "the sweep is through" : `the sweep has come to step ${at}`})</small>`,
      label: "Gradient of each state, by unit and step", cursor: at, powers: Draw.decades(g.flat()),
      rows: Views.columns(g).map((values, j) => ({
        name: `unit ${j}`, largest, values: values.map((v, t) => t < at ? undefined : v),
        say: (t, v) => v === undefined ? `dL/dh_${t}, unit ${j}: the sweep has not come here yet` : `dL/dh_${t}, unit ${j}: ${number(v)}`,
      })),
    });
  }

  function stop() {
    clearInterval(timer);
    timer = 0;
    $("play").textContent = "Play";
  }

  /** `go(t)` puts the sweep at a step; `where()` says at which it is. */
  function wire(go, where) {
    $("back").addEventListener("click", () => { stop(); go(where() - 1, true); });
    $("later").addEventListener("click", () => { stop(); go(where() + 1, true); });
    $("at").addEventListener("input", () => { stop(); go(Number($("at").value), false); });
    $("at").addEventListener("change", () => go(Number($("at").value), true));
    $("play").addEventListener("click", () => {
      if (timer) return stop();
      if (where() === 0) go(Infinity, false);
      $("play").textContent = "Pause";
      timer = setInterval(() => {
        if (where() === 0) return stop();
        return go(where() - 1, false);
      }, PACE);
      return undefined;
    });
  }

  return { show, wire, stop };
})();
