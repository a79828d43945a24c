"use strict";
// The page: a change of a control, or of the address, becomes a wish for an answer, and an answer becomes pictures.

(() => {
  const $ = (id) => document.getElementById(id);
  let answer = null;

  function paint() {
    if (!answer) return;
    const at = Math.min(State.step(), answer.settings.steps - 1);
    const k2 = Math.min(State.k2, answer.settings.steps);
    Views.network(answer);
    Views.forward(answer, at);
    Sweep.show(answer, at);
    Views.ledger(answer, k2);
    Views.flow(answer, at);
    Views.gates(answer, at);
    Training.describe(answer.settings, k2);
    Training.draw();
    document.body.dataset.shown = `${answer.query} k2=${k2} at=${at}`;
  }

  function problem(sentence) {
    $("problem").textContent = sentence ?? "";
    $("problem").hidden = !sentence;
  }

  /** Have the pictures follow the settings. */
  function update() {
    const query = State.query(false);
    Answers.ask(query, (asked, found) => {
      problem(null);
      answer = { ...found, query: asked };
      if (asked === State.query(false)) State.show();
      paint();
      document.body.dataset.answered = asked;
    }, (asked, sentence) => {
      problem(sentence);
      document.body.dataset.answered = asked;
    });
  }

  function changed(isNew) {
    State.read();
    State.show();
    State.keep(isNew);
    update();
  }

  function moved() {
    Sweep.stop();
    if (/^\w+$/.test(location.hash.slice(1))) return; // a place on the page
    State.fromAddress();
    State.show();
    update();
  }

  function goTo(step, isNew) {
    const last = Number(State.now.steps) - 1;
    const at = Math.max(0, Math.min(last, step));
    State.change({ at: at === last ? "" : String(at) });
    State.show();
    State.keep(isNew);
    paint();
  }

  // Changes of one control in a row, as in a drag, are one entry of the history.
  const ROW = 1000; // ms
  let newest = { name: "", at: -Infinity };
  const isWhole = (input) => input.type !== "number" || input.validity.valid;

  State.form.addEventListener("input", ({ target }) => {
    if (!isWhole(target)) return;
    const goesOn = target.type !== "radio" && target.name === newest.name && performance.now() - newest.at < ROW;
    newest = { name: target.name, at: performance.now() };
    changed(!goesOn);
  });
  State.form.addEventListener("change", ({ target }) => {
    if (!isWhole(target)) {
      problem("The seed must be a whole number from 0 to 9999.");
    } else if (!held) {
      Answers.hurry();
    }
  });
  // A key that is held down is a drag, too.
  let held = false;
  State.form.addEventListener("keydown", (event) => { held = event.repeat; });
  State.form.addEventListener("keyup", () => {
    if (held) Answers.hurry();
    held = false;
  });
  State.form.addEventListener("submit", (event) => event.preventDefault());
  State.form.addEventListener("reset", (event) => {
    event.preventDefault();
    State.reset();
    State.show();
    State.keep(true);
    update();
  });
  $("another").addEventListener("click", () => {
    const seeds = State.only ? State.only.seed : null;
    const next = (Number(State.now.seed) + 1) % (seeds ? seeds.length : 10000);
    State.change({ seed: String(next) });
    State.show();
    State.keep(true);
    update();
  });
  $("whole").addEventListener("click", () => {
    State.change({ show: "" });
    State.show();
    State.keep(true);
    paint();
  });
  window.addEventListener("popstate", moved);
  Sweep.wire(goTo, () => State.step());
  Training.wire(() => State.query(true), () => `${State.now.cell.toUpperCase()}, T = ${State.now.steps}, scale ${State.now.scale}, k2 = ${State.k2}`);

  let width = document.body.clientWidth;
  new ResizeObserver(() => {
    if (document.body.clientWidth === width) return;
    width = document.body.clientWidth;
    requestAnimationFrame(paint);
  }).observe(document.body);

  for (const legend of document.querySelectorAll(".signs")) legend.innerHTML = Draw.signs();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    Draw.forgetColours();
    paint();
  });

  Answers.open().then((box) => {
    if (box) {
      State.limitTo(box.values);
      $("stored-note").textContent = box.note;
      $("stored-note").hidden = false;
    }
    State.fromAddress();
    State.show();
    update();
  });
})();
