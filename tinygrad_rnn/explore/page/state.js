"use strict";
// What is chosen: in the controls, in the address, and in what is asked of the server. One place of truth, `State.now`,
// a flat object of strings; the address holds what differs from the page's defaults.

const State = (() => {
  const form = document.getElementById("controls");
  const at = document.getElementById("at");
  const SLIDERS = ["steps", "hidden", "scale"];
  const WHOLE = "64"; // of k2: nothing is cut
  const defaults = {};
  for (const { name, value, type, defaultChecked, defaultValue } of form.elements) {
    if (name && (type !== "radio" || defaultChecked)) defaults[name] = type === "radio" ? value : defaultValue;
  }
  // Where the sweep stands, "" for the last step, and which parts of the page are shown, "" for all of them.
  const OF_THE_PAGE = { at: "", show: "" };
  let now = { ...defaults, ...OF_THE_PAGE };
  // Of a page that is one file: the values that it has answers for, by control.
  let only = null;

  const inputOf = (name) => form.elements[name];

  function limitTo(values) {
    only = values;
    for (const name of SLIDERS) {
      const input = inputOf(name);
      Object.assign(input, { min: 0, max: values[name].length - 1, step: 1 });
      input.disabled = values[name].length < 2;
    }
    inputOf("seed").disabled = true;
    document.getElementById("another").disabled = values.seed.length < 2;
  }

  /** The settings as the controls show them. */
  function fromControls() {
    const read = {};
    for (const name of ["cell", "nonlinearity", "loss", "seed", "k2"]) read[name] = inputOf(name).value;
    for (const name of SLIDERS) read[name] = only ? only[name][inputOf(name).value] : inputOf(name).value;
    const T = Number(read.steps);
    const before = Number(now.steps);
    // Truncation at the end of its slider means: whole, also when there are more steps.
    if (T === before ? Number(read.k2) >= T : Number(now.k2) >= before) read.k2 = WHOLE;
    return read;
  }

  function show() {
    for (const name of ["cell", "nonlinearity", "loss", "seed"]) inputOf(name).value = now[name];
    for (const name of SLIDERS) inputOf(name).value = only ? Math.max(0, only[name].indexOf(now[name])) : now[name];
    const T = Number(now.steps);
    inputOf("k2").max = T;
    inputOf("k2").value = Math.min(Number(now.k2), T);
    at.max = T - 1;
    at.value = step();
    const cut = Number(now.k2) < T;
    const said = { steps: now.steps, hidden: now.hidden, scale: Number(now.scale).toFixed(2) };
    said.k2 = cut ? `t − k < ${now.k2}` : "whole";
    for (const [name, text] of Object.entries(said)) {
      document.getElementById(`${name}-shown`).textContent = text;
      inputOf(name).setAttribute("aria-valuetext", name === "k2" && !cut ? "whole, nothing is cut" : text);
    }
    document.getElementById("nonlinearities").disabled = now.cell !== "rnn";
    showParts();
  }

  function showParts() {
    const parts = now.show.split(",").filter((name) => document.querySelector(`[data-part="${CSS.escape(name)}"]`));
    document.body.classList.toggle("part", parts.length > 0);
    for (const section of document.querySelectorAll("[data-part]"))
      section.hidden = parts.length > 0 && !parts.includes(section.dataset.part);
  }

  /** The step at which the sweep stands. */
  function step() {
    const T = Number(now.steps);
    return now.at === "" ? T - 1 : Math.min(Number(now.at), T - 1);
  }

  function hash() {
    const usual = { ...defaults, ...OF_THE_PAGE };
    const kept = Object.keys(usual).filter((name) => now[name] !== usual[name]).map((name) => [name, now[name]]);
    return kept.length ? `#${new URLSearchParams(kept)}` : "#";
  }

  function fromAddress() {
    const text = location.hash.slice(1);
    now = { ...defaults, ...OF_THE_PAGE };
    for (const [name, value] of new URLSearchParams(text.includes("=") ? text : "")) now[name] = value;
    if (!/^\d{0,2}$/.test(now.at)) now.at = "";
  }

  /** The address as the settings are; a new entry of the history, or the newest one changed. */
  function keep(isNew) {
    const address = hash();
    if (address === (location.hash || "#")) return;
    if (isNew) history.pushState(null, "", address);
    else history.replaceState(null, "", address);
  }

  /** What is asked of the server. The truncation is a part of every answer, the step of the sweep of none. */
  function query(withTruncation) {
    const asked = new URLSearchParams(now);
    for (const name of Object.keys(OF_THE_PAGE)) asked.delete(name);
    if (!withTruncation) asked.delete("k2");
    if (now.cell !== "rnn") asked.delete("nonlinearity");
    return asked.toString();
  }

  return {
    form, at, WHOLE, limitTo, show, step, fromAddress, keep, query,
    get now() { return now; },
    get only() { return only; },
    change(settings) { now = { ...now, ...settings }; },
    read() { now = { at: now.at, show: now.show, ...fromControls() }; }, // and nothing else of the address
    reset() { now = { ...defaults, ...OF_THE_PAGE, show: now.show }; },
    get k2() { return Math.min(Number(now.k2), Number(now.steps)); },
  };
})();

// Answers: from the server, one request in flight and the newest wish next, or from what is stored in the page.
const Answers = (() => {
  // Wishes that come in a row, as in a drag, are granted at once and then ever more seldom; the last one always is.
  const GAP = 120, LONGER = 1.25, ROW = 1000; // ms between two requests, by how much it grows, ms that end a row
  const KEPT = 60;
  const cache = new Map();
  let box = null; // of a page that is one file: {names, values, answers, graphs, note}
  let wish = null, flying = false, last = -Infinity, wished = -Infinity, gap = 0, timer = 0;

  /** The answers that the page has inside; null where it has a server. */
  async function open() {
    const stored = document.getElementById("stored");
    if (!stored) return null;
    const packed = Uint8Array.from(atob(stored.textContent), (letter) => letter.charCodeAt(0));
    box = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
    return box;
  }

  function fromBox(query) {
    const asked = new URLSearchParams(query);
    const values = box.names.map((name) => asked.get(name) ?? "tanh");
    const answer = box.answers[values.join(" ")];
    if (answer) return { ...answer, graph: box.graphs[answer.graph] };
    const i = box.names.findIndex((name, k) => !box.values[name].includes(values[k]));
    const name = box.names[i] ?? "these settings";
    const has = box.values[name] ? `: of ${name} it has ${box.values[name].join(", ")}` : "";
    throw new Error(`This file holds no answer for ${name}${i < 0 ? "" : ` = ${values[i]}`}${has}.`);
  }

  async function fetched(query) {
    let response;
    try {
      response = await fetch(`answer?${query}`);
    } catch {
      throw new Error("The server does not answer. Is tinygrad-rnn explore still running?");
    }
    if (!response.ok) throw new Error((await response.text()).trim());
    return response.json();
  }

  function remember(query, answer) {
    cache.set(query, answer);
    if (cache.size > KEPT) cache.delete(cache.keys().next().value);
  }

  async function go() {
    clearTimeout(timer);
    if (flying || !wish) return;
    const wait = last + gap - performance.now();
    if (wait > 0) {
      timer = setTimeout(go, wait);
      return;
    }
    const { query, done, failed } = wish;
    wish = null;
    flying = true;
    last = performance.now();
    gap = gap ? gap * LONGER : GAP;
    try {
      const answer = await fetched(query);
      remember(query, answer);
      if (wish?.query === query) wish = null;
      done(query, answer);
    } catch (error) {
      if (!wish) failed(query, error.message);
    } finally {
      flying = false;
      go();
    }
  }

  /** Have `done(query, answer)` or `failed(query, sentence)` called. A later wish takes the place of one that waits. */
  function ask(query, done, failed) {
    try {
      const known = box ? fromBox(query) : cache.get(query);
      wish = null;
      if (known) return done(query, known);
    } catch (error) {
      return failed(query, error.message);
    }
    if (performance.now() - wished > ROW) gap = 0;
    wished = performance.now();
    wish = { query, done, failed };
    return go();
  }

  /** What waits is asked for now: a drag has ended. */
  function hurry() {
    gap = 0;
    return go();
  }

  return { ask, hurry, open, get box() { return box; } };
})();
