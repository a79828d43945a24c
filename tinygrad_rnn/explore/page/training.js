"use strict";
// A training run, live: the server sends its losses as they come, and stops when nobody listens any more.

const Training = (() => {
  const { number } = Draw;
  const $ = (id) => document.getElementById(id);
  let source = null, points = [], about = null;

  function describe(settings, k2) {
    const T = Number(settings.steps);
    const cut = k2 < T ? `, with gradients truncated to k2 = ${k2} steps` : "";
    $("training-text").textContent = Answers.box
      ? "A file cannot train. With tinygrad_rnn installed, tinygrad-rnn explore opens this page with a training run, live."
      : `Adam takes this very network through fresh sequences of ${T} numbers${cut}, for 400 steps or 20 seconds. ` +
        "An answer that remembers nothing costs 0.167.";
    $("train").disabled = source !== null;
    $("train").parentNode.hidden = Boolean(Answers.box);
  }

  function draw() {
    if (!points.length) return;
    Draw.curves($("training"), "loss", {
      caption: `Loss of fresh sequences <small>(${about})</small>`, label: "Training loss by step", xlabel: "step",
      xs: points.map(([step]) => step), tall: 170,
      curves: [
        { name: "loss", kind: "a", values: points.map(([, loss]) => loss), say: (i, v) => `after ${points[i][0]} steps: ${number(v)}` },
        { name: "remembering nothing", kind: "c", isPlain: true, values: points.map(([, , nothing]) => nothing),
          say: (i, v) => `after ${points[i][0]} steps: remembering nothing costs ${number(v)}` },
      ],
    });
  }

  function end(sentence) {
    if (source) source.close();
    source = null;
    $("stop").disabled = true;
    $("train").disabled = false;
    $("training-status").textContent = sentence;
  }

  function start(query, words) {
    points = [];
    about = words;
    Draw.keepOnly($("training"), []);
    $("train").disabled = true;
    $("stop").disabled = false;
    $("training-status").textContent = "Training …";
    source = new EventSource(`train?${query}`);
    source.addEventListener("loss", (event) => {
      const { step, loss, nothing } = JSON.parse(event.data);
      points.push([step, loss, nothing]);
      draw();
    });
    source.addEventListener("end", (event) => end(JSON.parse(event.data).sentence));
    source.addEventListener("error", () => end("The run broke off: the server does not answer, or another run is under way."));
  }

  function wire(query, words) {
    $("train").addEventListener("click", () => { start(query(), words()); $("stop").focus(); });
    $("stop").addEventListener("click", () => {
      end(points.length ? `Stopped after ${points.at(-1)[0]} steps: ${number(points.at(-1)[1])}.` : "Stopped.");
      $("train").focus();
    });
  }

  return { wire, describe, draw };
})();
