"use strict";
// The pictures of one answer, but for the sweep and the training run.

const Views = (() => {
  const { number } = Draw;
  const $ = (id) => document.getElementById(id);
  const set = (id, html) => { if ($(id).innerHTML !== html) $(id).innerHTML = html; };
  const sub = (name, index) => `${name}<sub>${index}</sub>`;
  const NAMES = { rnn: "RNN", lstm: "LSTM", gru: "GRU" };
  const FUNCTIONS = { tanh: "tanh", relu: "ReLU", sigmoid: "σ" };

  const lines = (...equations) => equations.map((e) => `<span>${e}</span>`).join("");

  function equations(settings) {
    const times = (name, index) => `${name} W<sub>${index}</sub><sup>⊤</sup>`;
    const both = (g) => `${times("x<sub>t</sub>", `i${g}`)} + ${times("h<sub>t−1</sub>", `h${g}`)} + b<sub>${g}</sub>`;
    const start = "h<sub>−1</sub> = 0";
    if (settings.cell === "rnn")
      return lines(`h<sub>t</sub> = ${FUNCTIONS[settings.nonlinearity]}(${times("x<sub>t</sub>", "ih")} + ${times("h<sub>t−1</sub>", "hh")} + b)`, start);
    if (settings.cell === "lstm")
      return lines(...["i", "f"].map((g) => `${g} = σ(${both(g)})`), `g = tanh(${both("g")})`, `o = σ(${both("o")})`,
        "c<sub>t</sub> = f ⊙ c<sub>t−1</sub> + i ⊙ g", "h<sub>t</sub> = o ⊙ tanh(c<sub>t</sub>)", `${start}, c<sub>−1</sub> = 0`);
    return lines(...["r", "z"].map((g) => `${g} = σ(${both(g)})`),
      `n = tanh(${times("x<sub>t</sub>", "in")} + b<sub>in</sub> + r ⊙ (${times("h<sub>t−1</sub>", "hn")} + b<sub>hn</sub>))`,
      "h<sub>t</sub> = (1 − z) ⊙ n + z ⊙ h<sub>t−1</sub>", start);
  }

  function network(answer) {
    const { settings } = answer;
    const T = settings.steps;
    set("network-text", `${NAMES[settings.cell]} with ${settings.hidden} hidden unit${settings.hidden > 1 ? "s" : ""}, ` +
      `read by a linear layer: ${answer.parameters} parameters, the same at each of the ${T} step${T > 1 ? "s" : ""}. ` +
      `W<sub>hh</sub> is ${settings.cell === "rnn" ? "" : "for each gate "}an orthogonal matrix times ${settings.scale}. ` +
      `${settings.cell === "lstm" ? "The forget gates begin open, with a bias of 2. " : ""}x<sub>t</sub> is a number beside a mark, which is 1 at step 0. Asked for: the first number, ` +
      `${settings.loss === "last" ? "at the last step" : "at every step"}; L<sub>t</sub> = ½ (ŷ<sub>t</sub> − y)².`);
    set("equation", equations(settings) + lines("ŷ<sub>t</sub> = h<sub>t</sub> w<sup>⊤</sup> + b<sub>ŷ</sub>"));
    if (answer.graph !== $("graph").dataset.svg) {
      $("graph").dataset.svg = answer.graph ?? "";
      $("graph").innerHTML = answer.graph ?? "";
    }
  }

  const columns = (matrix) => matrix.length ? matrix[0].map((_, j) => matrix.map((row) => row[j])) : [];
  const most = (...lists) => Math.max(1e-300, ...lists.flat(3).filter(Number.isFinite).map(Math.abs));

  function forward(answer, at) {
    const { x, h, c, o, y, losses } = answer.forward;
    const T = x.length;
    const first = T - losses.length;
    const rows = [
      { name: "x", values: x.map((row) => row[0]), largest: 1, say: (t, v) => `x_${t}, the number read at step ${t}: ${number(v)}` },
      { name: "mark", values: x.map((row) => row[1]), largest: 1, say: (t, v) => `the mark at step ${t}: ${number(v)}` },
    ];
    Draw.states($("forward"), "x", { caption: "What is read", label: "Inputs by step", rows, cursor: at });
    const units = (name, matrix, largest, words) => columns(matrix).map((values, j) => ({
      name: `unit ${j}`, values, largest, say: (t, v) => `${name}_${t}, ${words}, unit ${j} after step ${t}: ${number(v)}`,
    }));
    Draw.states($("forward"), "h", {
      caption: "The state h<sub>t</sub>, unit by unit", label: "State h by unit and step", cursor: at,
      rows: units("h", h, Math.max(1, most(h)), "the state"),
    });
    if (c) Draw.states($("forward"), "c", {
      caption: "The cell's memory c<sub>t</sub>", label: "Memory c by unit and step", rows: units("c", c, most(c), "the memory"), cursor: at,
    });
    const outputs = [
      { name: "ŷ", values: o, largest: most(o, [y]), say: (t, v) => `ŷ_${t}, the output of step ${t}: ${number(v)}; asked for is ${number(y)}` },
      {
        name: "L", values: o.map((_, t) => t < first ? undefined : losses[t - first]), largest: most(losses),
        say: (t, v) => t < first ? `no loss at step ${t}` : `L_${t}, the loss of step ${t}: ${number(v)}`,
      },
    ];
    Draw.states($("forward"), "o", {
      caption: `What is said <small>(asked for: ${number(y)}; ${losses.length > 1 ? "the losses add up to" : "the loss is"} ${number(losses.reduce((a, b) => a + b, 0))})</small>`,
      label: "Outputs and losses by step", rows: outputs, cursor: at,
    });
    Draw.keepOnly($("forward"), ["x", "h", ...(c ? ["c"] : []), "o"]);
  }

  const TALLEST = 440; // of the table

  function ledger(answer, k2) {
    const { rows, first, total } = answer.ledger;
    const T = answer.settings.steps;
    const isLast = answer.settings.loss === "last";
    set("ledger-text", (isLast
      ? `The loss of the last step depends on W<sub>hh</sub> at every step k. Each entry is the norm of what the use at step k adds to the gradient. `
      : `Each row is the loss of a step t, each column a use of W<sub>hh</sub> at a step k ≤ t: the norm of what it adds to the gradient. `) +
      `On the diagonal, k = t, stands the <b>explicit</b> term, before it the <b>implicit</b> ones, which reach back through the states. ` +
      `All of them add up to the gradient, whose norm is ${number(total)}. The use at step 0 multiplies h<sub>−1</sub> = 0: it adds exactly 0.`);
    table(rows, first, T, k2);
    const { norm, cut, angle } = answer.ledger.truncated;
    const at = { norm: norm[k2 - 1], cut: cut[k2 - 1], angle: angle[k2 - 1] };
    set("cut-text", k2 >= T
      ? "Truncation: nothing is cut."
      : `Truncation k2 = ${k2} keeps t − k &lt; ${k2}. Its gradient has the norm ${number(at.norm)}, ` +
        (at.angle === null ? "and no angle to the full one, as one of them is 0" : `points ${number(at.angle)}° away from the full one`) +
        `, and what is cut has the norm ${number(at.cut)}.`);
    angles(angle, k2);
  }

  function table(rows, first, T, k2) {
    const host = $("ledger");
    const left = Draw.LEFT, top = 4, width = Draw.widthOf(host);
    const w = Math.min(Draw.WIDEST, (width - left - 2) / T);
    const h = rows.length === 1 ? 28 : Math.min(30, Math.max(TALLEST / T, 4));
    const height = top + rows.length * h + 21;
    const largest = most(rows), count = Draw.decades(rows.flat());
    const laid = rows.map((row, r) => ({ entries: row.map((value, k) => ({
      c: k, say: entry(first + r, k, value, k2), x: left + k * w, y: top + r * h, w, h,
    })) }));
    const isCut = (r) => Math.max(0, first + r - k2 + 1); // how many entries of a row
    Draw.put(Draw.figure(host, "ledger"), {
      caption: "Norm of each entry <small>(columns: the step k at which W<sub>hh</sub> was used)</small>",
      label: "Ledger of W_hh: a row for each loss, a column for each use", width, height, rows: laid,
      paint: (pen, colours) => {
        const every = Math.max(1, Math.ceil(14 / h));
        rows.forEach((row, r) => {
          if (rows.length === 1 || (first + r) % every === 0)
            Draw.text(pen, colours.soft, `L${small(first + r)}`, left - 7, top + (r + 0.5) * h + 4, "right");
          row.forEach((value, k) =>
            Draw.shape(pen, colours, value, Draw.inDecades(value, largest, count), laid[r].entries[k], colours.seq));
        });
        Draw.text(pen, colours.soft, "k", left - 7, height - 5, "right");
        for (const k of Draw.ticks(T, w * T)) Draw.text(pen, colours.soft, k, left + (k + 0.5) * w, height - 5, "center");
        pen.strokeStyle = colours.ink;
        pen.lineWidth = w < 8 ? 1 : 1.5;
        rows.forEach((_, r) => pen.strokeRect(left + (first + r) * w + 0.75, top + r * h + 0.75, w - 1.5, h - 1.5));
        hatch(pen, colours, rows.map((_, r) => ({ x: left, y: top + r * h, w: isCut(r) * w, h })).filter((box) => box.w));
      },
      legend: Draw.key([["q", `dark: ${number(largest)}, paler by powers of ten, down to ${number(largest / 10 ** count)}`],
        ["frame", "framed: explicit"], ["zero", "dot: exactly 0"], ...(k2 < T ? [["cut", "hatched: cut off"]] : [])]),
    });
  }

  function entry(t, k, value, k2) {
    const cut = t - k >= k2 ? ", cut off by the truncation" : "";
    return `loss of step ${t}, use at step ${k}, ${t === k ? "explicit" : "implicit"}: ${value === 0 ? "exactly 0" : number(value)}${cut}`;
  }

  const small = (t) => [...String(t)].map((digit) => "₀₁₂₃₄₅₆₇₈₉"[digit]).join("");

  /** Boxes one below the other, hatched as one area. */
  function hatch(pen, colours, boxes) {
    if (!boxes.length) return;
    const area = new Path2D();
    for (const box of boxes) area.rect(box.x, box.y, box.w, box.h);
    const end = boxes.at(-1);
    const right = Math.max(...boxes.map((box) => box.x + box.w)), bottom = end.y + end.h;
    pen.save();
    pen.clip(area);
    pen.fillStyle = colours.card;
    pen.globalAlpha = 0.4;
    pen.fill(area);
    pen.globalAlpha = 1;
    pen.strokeStyle = colours.ink;
    pen.lineWidth = 1;
    pen.beginPath();
    for (let x = end.x; x < right + bottom; x += 7) {
      pen.moveTo(x, boxes[0].y);
      pen.lineTo(x - (bottom - boxes[0].y), bottom);
    }
    pen.stroke();
    pen.restore();
  }

  function angles(angle, k2) {
    if (angle.length < 2) return Draw.keepOnly($("angles"), []);
    return Draw.curves($("angles"), "angles", {
      caption: "Angle between the truncated gradient and the full one, in degrees", label: "Angle by truncation k2",
      xs: angle.map((_, i) => i + 1), xlabel: "k2", log: false, cursor: k2 - 1, tall: 130, legend: "",
      curves: [{ name: "angle", kind: "a", values: angle,
        say: (i, v) => `k2 = ${i + 1}: ${v === null ? "no angle" : `${number(v)} degrees`}` }],
    });
  }

  const GATES = {
    i: "input gate i: how much of the candidate is written", f: "forget gate f: how much of c stays",
    g: "candidate g: what could be written", o: "output gate o: how much of c is shown",
    r: "reset gate r: how much of h enters the candidate", z: "update gate z: how much of h stays", n: "candidate n",
  };

  function gates(answer, at) {
    const found = Object.entries(answer.gates ?? {});
    set("gates-text", found.length
      ? "A gate is a number from 0, shut, to 1, open, for each unit and step; a candidate lies between −1 and 1."
      : "A plain RNN has none: each step overwrites the whole state. Choose LSTM or GRU to see theirs.");
    for (const [name, matrix] of found) {
      Draw.states($("gates"), name, {
        caption: GATES[name], label: GATES[name], cursor: at, unit: 13,
        rows: columns(matrix).map((values, j) => ({ name: `unit ${j}`, values, largest: 1,
          say: (t, v) => `${GATES[name].split(":")[0]}, unit ${j}, step ${t}: ${number(v)}` })),
      });
    }
    document.querySelector("#gates ~ .signs").hidden = !found.length;
    Draw.keepOnly($("gates"), found.map(([name]) => name));
  }

  function flow(answer, at) {
    const { states, bound, norms, radii, verdict } = answer.flow;
    $("verdict").textContent = verdict;
    const T = states.length;
    const curves = [{ name: "|dL/dh<sub>t</sub>|", kind: "a", values: states, say: (t, v) => `|dL/dh_${t}| = ${number(v)}` }];
    if (bound) curves.push({ name: "the bound: never above it", kind: "b", values: bound, say: (t, v) => `bound of |dL/dh_${t}|: ${number(v)}` });
    Draw.curves($("flow"), "flow", {
      caption: "The gradient of each state <small>(powers of ten)</small>", label: "Norm of dL/dh by step", curves, cursor: at,
      xs: [...Array(T).keys()],
    });
    if (!norms || T < 2) return Draw.keepOnly($("jacobians"), []);
    return Draw.curves($("jacobians"), "jacobians", {
      caption: answer.settings.cell === "lstm"
        ? "The Jacobian of one step, of (h<sub>t</sub>, c<sub>t</sub>) by (h<sub>t−1</sub>, c<sub>t−1</sub>)"
        : "The Jacobian of one step, of h<sub>t</sub> by h<sub>t−1</sub>", label: "Norm and spectral radius of the step's Jacobian",
      xs: [...Array(T).keys()], tall: 150, cursor: at,
      curves: [
        { name: "norm: at most this much longer", kind: "a", values: norms, from: T - norms.length, say: (i, v) => `norm of the Jacobian of step ${i + T - norms.length}: ${number(v)}` },
        { name: "spectral radius", kind: "c", values: radii, from: T - radii.length, say: (i, v) => `spectral radius of the Jacobian of step ${i + T - radii.length}: ${number(v)}` },
      ],
    });
  }

  return { network, forward, ledger, gates, flow, sub, columns, most, set };
})();
