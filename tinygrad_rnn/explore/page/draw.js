"use strict";
// Pictures of numbers. Each is a canvas under a grid whose entries are reached by the arrow keys, spoken by their label,
// and written above the picture while they have the focus or the pointer is over them. Of the entries only the one that
// the tab key reaches is an element: thousands of them would be slow. No state is told by colour alone.

const Draw = (() => {
  const LEFT = 54; // room for the names of rows
  const WIDEST = 100; // of a column
  const $ = (text) => document.createElement(text);
  const clamp = (v, low, high) => Math.max(low, Math.min(high, v));

  /** A number as a reader wants it: three digits. */
  function number(value) {
    if (value === null || value === undefined) return "not finite";
    if (value === 0) return "0";
    const size = Math.abs(value);
    const text = size >= 1e4 || size < 1e-3 ? value.toExponential(1) : Number(value.toPrecision(3)).toString();
    return text.replaceAll("-", "−").replace("e+", "e");
  }

  // --- figures and their entries --------------------------------------------------------------------

  // Of each figure: rows [{name, entries: [{c, say, x, y, w, h}]}], and where the tab key gets to.
  const models = new WeakMap();

  /** The figure named `key` in a host, made at the first call. */
  function figure(host, key) {
    let found = host.querySelector(`:scope > [data-key="${key}"]`);
    if (!found) {
      found = $("figure");
      found.dataset.key = key;
      found.innerHTML = `<div class="head"><figcaption></figcaption><p class="readout" aria-hidden="true"></p></div>
        <div class="plot"><canvas aria-hidden="true"></canvas><div role="grid" aria-readonly="true"></div></div>
        <p class="legend"></p>`;
      host.append(found);
      behave(found);
    }
    return found;
  }

  /** Figures that were not drawn this time go. */
  function keepOnly(host, keys) {
    for (const figure of [...host.children]) if (!keys.includes(figure.dataset.key)) figure.remove();
  }

  const readout = (figure, text) => { figure.querySelector(".readout").textContent = text; };
  const hasFocus = (figure) => figure.querySelector("[role=grid]").contains(document.activeElement);

  function behave(figure) {
    const plot = figure.querySelector(".plot");
    const under = (event) => {
      const box = plot.getBoundingClientRect();
      return nearest(models.get(figure).rows, event.clientX - box.left, event.clientY - box.top);
    };
    plot.addEventListener("pointermove", (event) => {
      const found = under(event);
      if (found) readout(figure, found.entry.say);
    });
    plot.addEventListener("pointerleave", () => {
      readout(figure, hasFocus(figure) ? document.activeElement.getAttribute("aria-label") : "");
    });
    plot.addEventListener("pointerdown", (event) => {
      const found = under(event);
      if (!found) return;
      event.preventDefault();
      go(figure, found.r, found.entry.c);
    });
    figure.addEventListener("focusin", ({ target }) => readout(figure, target.getAttribute("aria-label") ?? ""));
    figure.addEventListener("focusout", () => readout(figure, ""));
    figure.addEventListener("keydown", (event) => {
      if (event.altKey || event.metaKey) return;
      const next = neighbour(models.get(figure), event.key, event.ctrlKey);
      if (!next) return;
      event.preventDefault();
      go(figure, next.r, next.c);
    });
  }

  /** The entry at a place of the picture, or the nearest one a few pixels away. */
  function nearest(rows, x, y) {
    let best = null, least = 14;
    rows.forEach((row, r) => row.entries.forEach((entry) => {
      const far = Math.hypot(x - clamp(x, entry.x, entry.x + entry.w), y - clamp(y, entry.y, entry.y + entry.h));
      if (far < least) [best, least] = [{ r, entry }, far];
    }));
    return best;
  }

  function neighbour({ rows, r, c }, key, control) {
    const row = rows[r].entries;
    const i = row.findIndex((entry) => entry.c === c);
    const end = rows.length - 1;
    const beside = (to) => {
      const far = (entry) => Math.abs(entry.c - c);
      return { r: to, c: rows[to].entries.reduce((best, entry) => far(entry) < far(best) ? entry : best).c };
    };
    switch (key) {
      case "ArrowRight": return { r, c: row[Math.min(i + 1, row.length - 1)].c };
      case "ArrowLeft": return { r, c: row[Math.max(i - 1, 0)].c };
      case "ArrowDown": return beside(Math.min(r + 1, end));
      case "ArrowUp": return beside(Math.max(r - 1, 0));
      case "PageDown": return beside(end);
      case "PageUp": return beside(0);
      case "Home": return control ? { r: 0, c: rows[0].entries[0].c } : { r, c: row[0].c };
      case "End": return control ? { r: end, c: rows[end].entries.at(-1).c } : { r, c: row.at(-1).c };
      default: return null;
    }
  }

  /** The focus to an entry. */
  function go(figure, r, c) {
    const model = models.get(figure);
    const moves = r !== model.r || c !== model.c;
    Object.assign(model, { r, c });
    // A new element, so that a screen reader speaks it.
    if (moves) figure.querySelector("[role=grid]").replaceChildren();
    place(figure).focus();
  }

  /** The element of the entry that the tab key reaches, where that entry is now. */
  function place(figure) {
    const { rows, r, c } = models.get(figure);
    const grid = figure.querySelector("[role=grid]");
    if (!grid.firstChild) {
      grid.innerHTML = '<div role="row"><div role="gridcell" tabindex="0"></div></div>';
    }
    const cell = grid.firstChild.firstChild;
    const entry = rows[r].entries.find((other) => other.c === c);
    grid.firstChild.setAttribute("aria-rowindex", r + 1);
    cell.setAttribute("aria-colindex", c + 1);
    cell.setAttribute("aria-label", entry.say);
    for (const [side, value] of [["left", entry.x], ["top", entry.y], ["width", entry.w], ["height", entry.h]]) {
      cell.style[side] = `${value}px`;
    }
    return cell;
  }

  /** Every entry of every picture in a host, as it is spoken. */
  const entries = (host) => [...host.querySelectorAll("figure")].flatMap((found) =>
    models.get(found).rows.flatMap((row) => row.entries.map((entry) => entry.say)));

  /** Put a picture into its figure; the focus stays where it was. `paint(pen, colours)` draws on a canvas. */
  function put(figure, { caption, label, width, height, rows, paint, legend = "" }) {
    const before = models.get(figure);
    const filled = rows.filter((row) => row.entries.length);
    let r = Math.min(before?.r ?? 0, filled.length - 1);
    let c = before?.c ?? 0;
    if (!filled[r].entries.some((entry) => entry.c === c)) c = filled[r].entries[0].c;
    models.set(figure, { rows: filled, r, c });

    const canvas = figure.querySelector("canvas");
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.font = "12px system-ui, sans-serif";
    pen.lineJoin = "round";
    paint(pen, colours());

    const grid = figure.querySelector("[role=grid]");
    grid.setAttribute("aria-label", label);
    grid.setAttribute("aria-rowcount", filled.length);
    grid.setAttribute("aria-colcount", 1 + Math.max(...filled.map((row) => row.entries.at(-1).c)));
    const cell = place(figure);
    if (document.activeElement === cell) readout(figure, cell.getAttribute("aria-label"));
    for (const [kind, html] of [["figcaption", caption], [".legend", legend]]) {
      const found = figure.querySelector(kind);
      if (found.dataset.html !== html) [found.dataset.html, found.innerHTML] = [html, html];
    }
  }

  const widthOf = (host) => Math.max(240, Math.floor(host.clientWidth));

  let known = null;
  /** The colours of the page. */
  function colours() {
    if (!known) {
      const style = getComputedStyle(document.documentElement);
      known = {};
      for (const name of ["pos", "neg", "seq", "ink", "soft", "line", "field", "card", "warn"])
        known[name] = style.getPropertyValue(`--${name}`).trim();
    }
    return known;
  }
  const forgetColours = () => { known = null; };

  // --- shapes ----------------------------------------------------------------------------------------

  /** The shape of a number: square if it is positive, round if it is negative, a dot if it is 0. */
  function shapeOf(value) {
    if (value === undefined) return "outline";
    if (value === null) return "cross";
    return value > 0 ? "square" : value < 0 ? "round" : "dot";
  }

  function shape(pen, colours, value, strength, box, colour) {
    const gap = box.w > 7 ? 1 : box.w > 4 ? 0.5 : 0.25;
    const x = box.x + gap / 2, y = box.y + gap / 2, w = box.w - gap, h = box.h - gap;
    const kind = shapeOf(value);
    if (kind === "outline") {
      pen.strokeStyle = colours.line;
      pen.lineWidth = 1;
      pen.setLineDash([2, 2]);
      pen.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
      pen.setLineDash([]);
      return;
    }
    pen.fillStyle = colours.field;
    pen.fillRect(x, y, w, h);
    if (kind === "dot") return dot(pen, colours, x + w / 2, y + h / 2, Math.min(1.6, w / 4));
    if (kind === "cross") return cross(pen, colours, x, y, w, h);
    pen.globalAlpha = clamp(strength, 0, 1);
    pen.fillStyle = colour ?? (kind === "round" ? colours.neg : colours.pos);
    if (kind === "round") {
      pen.beginPath();
      pen.roundRect(x, y, w, h, Math.min(w, h) / 2);
      pen.fill();
    } else pen.fillRect(x, y, w, h);
    pen.globalAlpha = 1;
  }

  function dot(pen, colours, x, y, size) {
    pen.fillStyle = colours.ink;
    pen.beginPath();
    pen.arc(x, y, size, 0, 7);
    pen.fill();
  }

  function cross(pen, colours, x, y, w, h) {
    pen.strokeStyle = colours.warn;
    pen.lineWidth = 1.5;
    pen.beginPath();
    pen.moveTo(x + 1, y + 1);
    pen.lineTo(x + w - 1, y + h - 1);
    pen.moveTo(x + w - 1, y + 1);
    pen.lineTo(x + 1, y + h - 1);
    pen.stroke();
  }

  function text(pen, colour, words, x, y, align) {
    pen.fillStyle = colour;
    pen.textAlign = align;
    pen.fillText(words, x, y);
  }

  /** A dashed frame, or line, around the step at which the sweep stands. */
  function cursor(pen, colours, draw) {
    pen.strokeStyle = colours.ink;
    pen.lineWidth = 1.25;
    pen.setLineDash([4, 3]);
    pen.beginPath();
    draw();
    pen.stroke();
    pen.setLineDash([]);
  }

  /** Columns that get a number: all, or every second, fifth, tenth. */
  function ticks(count, room, least = 22) {
    const step = [1, 2, 5, 10, 20, 50, 100].find((k) => (room / count) * k >= least) ?? 200;
    return [...Array(count).keys()].filter((t) => t % step === 0);
  }

  /** Signs and words of a legend. */
  function key(kinds) {
    return kinds.map(([kind, words]) => {
      const sign = {
        p: '<rect class="p" x="1" y="1" width="12" height="12"/>',
        n: '<rect class="n" x="1" y="1" width="12" height="12" rx="6"/>',
        q: '<rect class="q" x="1" y="1" width="12" height="12"/>',
        zero: '<rect class="bed" x="1" y="1" width="12" height="12"/><circle class="zero" cx="7" cy="7" r="1.6"/>',
        frame: '<rect class="bed" x="2" y="2" width="10" height="10"/><rect class="frame" x="2" y="2" width="10" height="10"/>',
        cut: '<path class="hatch" d="M1 6L6 1M1 13L13 1M8 13L13 8"/><rect class="frame" x="1" y="1" width="12" height="12"/>',
        a: '<path class="a" d="M0 7H20"/>', b: '<path class="b" d="M0 7H20"/>', c: '<path class="c" d="M0 7H20"/>',
      }[kind];
      return `<span><svg class="key" width="${"abc".includes(kind) ? 20 : 14}" height="14" aria-hidden="true">${sign}</svg>${words}</span>`;
    }).join("");
  }
  const signs = () => key([["p", "square: positive"], ["n", "round: negative"], ["zero", "dot: exactly 0"]]);

  // --- two kinds of pictures ----------------------------------------------------------------------

  /** How many powers of ten there are between numbers; six at most are told apart. */
  function decades(values) {
    const sizes = values.filter(Number.isFinite).map(Math.abs).filter((size) => size > 0);
    return sizes.length ? clamp(Math.ceil(Math.log10(Math.max(...sizes) / Math.min(...sizes))), 1, 6) : 1;
  }
  /** How dark a number is that is paler by powers of ten. */
  const inDecades = (value, largest, count) => value ? Math.max(0.08, 1 + 0.92 * Math.log10(Math.abs(value) / largest) / count) : 0;

  /** Signed numbers over steps: rows {name, say(t, v), values, largest}, a column for each step. Paler by so many powers
      of ten, or in proportion. */
  function states(host, name, { caption, label, rows, largest, cursor: at, unit = 15, powers = 0 }) {
    const T = rows[0].values.length, width = widthOf(host), top = 2, height = top + rows.length * unit + 19;
    const w = Math.min(WIDEST, (width - LEFT - 2) / T);
    const strength = (value, most) => powers ? inDecades(value, most, powers) : Math.abs(value) / most;
    const laid = rows.map((row, r) => ({
      entries: row.values.map((value, c) => ({ c, say: row.say(c, value), x: LEFT + c * w, y: top + r * unit, w, h: unit })),
    }));
    put(figure(host, name), { caption, label, width, height, rows: laid, paint: (pen, colours) => {
      rows.forEach((row, r) => {
        text(pen, colours.soft, row.name, LEFT - 7, top + r * unit + unit / 2 + 4, "right");
        row.values.forEach((value, c) =>
          shape(pen, colours, value, strength(value, row.largest ?? largest), laid[r].entries[c]));
      });
      text(pen, colours.soft, "t", LEFT - 7, height - 4, "right");
      for (const t of ticks(T, w * T)) text(pen, colours.soft, t, LEFT + (t + 0.5) * w, height - 4, "center");
      if (at !== undefined) cursor(pen, colours, () => pen.rect(LEFT + at * w, top - 1, w, rows.length * unit + 2));
    } });
  }

  const DASHES = { a: [], b: [7, 4], c: [2, 3] };

  /** Curves over `xs`, on a scale of powers of ten if `log`: curves {name, kind, from, values, say(i, v)}. */
  function curves(host, name, { caption, label, curves: lines, cursor: at, xs, log = true, xlabel = "t", tall = 190, legend }) {
    const width = widthOf(host), top = 8, bottom = 22, height = tall, floor = height - bottom;
    const seen = lines.flatMap((line) => line.values).filter((v) => v !== null && (!log || v > 0));
    const [low, high] = range(seen, log);
    const y = (v) => top + (floor - top) * (high - clamp(log ? Math.log10(v) : v, low, high)) / (high - low);
    const inner = Math.min(width - LEFT - 12, xs.length * WIDEST);
    const x = (i) => LEFT + inner * (i + 0.5) / xs.length;
    const size = clamp(inner / xs.length / 4, 1.6, 4);
    const points = lines.map((line) => line.values.map((v, i) =>
      ({ v, c: i + (line.from ?? 0), px: x(i + (line.from ?? 0)), py: v === null ? null : log && v <= 0 ? floor : y(v) })));
    const reach = size + 3;
    const laid = points.map((row, l) => ({ entries: row.map(({ v, c, px, py }, i) =>
      ({ c, say: lines[l].say(i, v), x: px - reach, y: (py ?? floor) - reach, w: 2 * reach, h: 2 * reach })) }));
    put(figure(host, name), { caption, label, width, height, rows: laid, legend: legend ?? key(lines.map((l) => [l.kind, l.name])),
      paint: (pen, colours) => {
        for (const v of spread(low, high, log)) {
          const place = y(log ? 10 ** v : v);
          pen.fillStyle = colours.line;
          pen.fillRect(LEFT, Math.round(place), inner, 1);
          text(pen, colours.soft, levelName(v, log), LEFT - 7, place + 4, "right");
        }
        text(pen, colours.soft, xlabel, LEFT - 7, height - 4, "right");
        for (const i of ticks(xs.length, inner, 8 + 8 * String(xs.at(-1)).length)) text(pen, colours.soft, xs[i], x(i), height - 4, "center");
        if (at !== undefined) cursor(pen, colours, () => { pen.moveTo(x(at), top); pen.lineTo(x(at), floor); });
        points.forEach((row, l) => curve(pen, colours, row, lines[l], size, log));
      } });
  }

  function curve(pen, colours, points, { kind, isPlain }, size, log) {
    pen.strokeStyle = { a: colours.pos, b: colours.neg, c: colours.soft }[kind];
    pen.lineWidth = 2;
    pen.setLineDash(DASHES[kind]);
    pen.beginPath();
    let drawn = false;
    for (const { v, px, py } of points) {
      const there = py !== null && (!log || v > 0);
      if (there && drawn) pen.lineTo(px, py);
      else if (there) pen.moveTo(px, py);
      drawn = there;
    }
    pen.stroke();
    pen.setLineDash([]);
    if (isPlain) return;
    pen.lineWidth = 1.5;
    pen.fillStyle = kind === "a" ? colours.pos : colours.card;
    for (const { px, py } of points) {
      if (py === null) continue;
      pen.beginPath();
      if (kind === "b") {
        pen.moveTo(px - size * 1.2, py + size * 1.1);
        pen.lineTo(px, py - size * 1.2);
        pen.lineTo(px + size * 1.2, py + size * 1.1);
        pen.closePath();
      } else pen.arc(px, py, size, 0, 7);
      pen.fill();
      if (kind !== "a") pen.stroke();
    }
  }

  function range(values, log) {
    if (!values.length) return log ? [-1, 0] : [0, 1];
    const at = log ? values.map(Math.log10) : values;
    let low = Math.min(...at), high = Math.max(...at);
    if (log) {
      high = Math.ceil(high + 1e-9);
      low = Math.min(Math.floor(low), high - 1);
      return [Math.max(low, high - 24), high];
    }
    low = Math.min(0, low);
    return [low, high > low ? low + (high - low) * 1.05 : low + 1];
  }

  const STEPS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 45, 90];
  function spread(low, high, log) {
    const step = log ? Math.max(1, Math.ceil((high - low) / 5)) : STEPS.find((s) => (high - low) / s <= 5) ?? (high - low) / 5;
    const found = [];
    for (let v = Math.ceil(low / step) * step; v <= high + 1e-9; v += step) found.push(log ? Math.round(v) : Number(v.toFixed(6)));
    return found;
  }

  const SMALL = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
  function levelName(v, log) {
    if (!log) return number(v);
    if (v >= -2 && v <= 3) return String(Number((10 ** v).toFixed(2)));
    return `10${[...String(v)].map((digit) => SMALL[digit]).join("")}`;
  }

  return {
    LEFT, WIDEST, number, figure, keepOnly, entries, put, widthOf, forgetColours, shapeOf, shape, text, ticks, key, signs, decades, inDecades,
    states, curves,
  };
})();
