"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const RULES = { // by name, what it changes
  gradient: "",
  guided: "The rule “guided” changes one thing: a relu also stops every gradient below zero, so that only what speaks for the score goes on. It draws clearer images, which say less about this net.",
  deconvnet: "The rule “deconvnet” changes one thing: a relu stops every gradient below zero, and does not ask whether its own gate was open.",
};
const state = { row: 0, rule: "gradient", pick: 0, channel: -1 };
const last = data.nodes.length - 1;
const dark = matchMedia("(prefers-color-scheme: dark)");
let bytes = new Uint8Array(0);

// ---- numbers and elements

function number(v, digits = 4) {
  if (v === 0) return "0";
  const size = Math.abs(v), sign = v < 0 ? "−" : "";
  if (size < 1e6 && size >= 1e-4) return sign + size.toPrecision(digits);
  const [front, power] = size.toExponential(digits - 1).split("e");
  return `${sign}${front}·10${[...power].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? { "-": "⁻", "+": "" }[c]).join("")}`;
}
const signed = (v, digits) => (v > 0 ? "+" : "") + number(v, digits);
const percent = (v) => (100 * v).toFixed(v > 0 && v < 0.1 ? 1 : 0) + "%";
const shape = (s) => s.join(" × ");

function make(tag, properties = {}, ...children) {
  const svg = ["svg", "path", "circle", "line"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "class") element.setAttribute("class", value);
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null) element.setAttribute(key, value);
  }
  element.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined));
  return element;
}

// ---- colours: the same two maps everywhere, symmetric about 0, or from 0 up

const COLOURS = {
  light: {
    signed: ["#053061", "#4393c3", "#f7f7f7", "#d6604d", "#67001f"],
    reach: ["#f7f7f7", "#74b58c", "#00441b"],
    gate: ["#f7f7f7", "#a37ab5", "#40004b"],
    pool: ["#f7f7f7", "#9a9a9a", "#2b2b2b"],
  },
  dark: {
    signed: ["#b5deff", "#3a86c8", "#1c2128", "#d8643c", "#ffdcc6"],
    reach: ["#1c2128", "#2f9a62", "#d0ffe0"],
    gate: ["#1c2128", "#a462c8", "#f6dcff"],
    pool: ["#1c2128", "#8a929a", "#ffffff"],
  },
};

function colour(map, t) {
  const stops = COLOURS[dark.matches ? "dark" : "light"][map];
  const place = map === "signed" ? ((t + 1) / 2) * (stops.length - 1) : t * (stops.length - 1);
  const at = Math.min(Math.max(place, 0), stops.length - 1);
  const i = Math.min(Math.floor(at), stops.length - 2);
  const part = (stop, k) => parseInt(stop.slice(1 + 2 * k, 3 + 2 * k), 16);
  return [0, 1, 2].map((k) => Math.round(part(stops[i], k) + (at - i) * (part(stops[i + 1], k) - part(stops[i], k))));
}

// ---- tiles

function values([at, scale], size) {
  const n = size[0] * size[1];
  if (scale === 0) return new Float32Array(n);
  return Float32Array.from(new Int8Array(bytes.buffer, at, n), (q) => (q * scale) / 127);
}

function limitOf(v) { // the deepest colour stands for the largest 0.5%, or if that is nothing for the largest
  const sizes = Float32Array.from(v, Math.abs).sort();
  return sizes[Math.max(Math.ceil(0.995 * sizes.length) - 1, 0)] || sizes[sizes.length - 1] || 1;
}

function paint(canvas, v, [h, w], limit, map) {
  canvas.width = w;
  canvas.height = h;
  const image = new ImageData(w, h);
  v.forEach((value, k) => image.data.set([...colour(map, value / limit), 255], 4 * k));
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function range(i, block, end) {
  const from = i * block, to = Math.min(from + block, end) - 1;
  return from === to ? `${from}` : `${from}–${to}`;
}

function tile(kind, title, note, v, size, map, ring) {
  const [h, w, H, W, fh, fw] = size;
  const limit = limitOf(v);
  const canvas = make("canvas", { "data-kind": kind, "data-limit": limit, role: "img", "aria-label": `${kind}: ${h} by ${w} values` });
  paint(canvas, v, size, limit, map);
  const show = (event) => {
    const box = canvas.getBoundingClientRect();
    const j = Math.min(w - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * w)));
    const i = Math.min(h - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * h)));
    tip(event, `row ${range(i, fh, H)}, column ${range(j, fw, W)}\n${signed(v[i * w + j])}`);
  };
  canvas.addEventListener("pointermove", show);
  canvas.addEventListener("pointerdown", show);
  canvas.addEventListener("pointerleave", hideTip);
  const holder = make("div", { class: "canvas" }, canvas);
  if (ring) {
    const mark = make("div", { class: "ring" });
    mark.style.left = `${(100 * (ring[1] + 0.5)) / W}%`;
    mark.style.top = `${(100 * (ring[0] + 0.5)) / H}%`;
    holder.append(mark);
  }
  const bar = make("canvas", { "aria-hidden": "true" });
  const low = map === "signed" ? -limit : 0;
  const ramp = Float32Array.from({ length: 101 }, (_, k) => low + ((limit - low) * k) / 100);
  paint(bar, ramp, [1, 101], limit, map);
  const scale = make("div", { class: "scale" }, number(low, 2), bar, signed(limit, 2));
  return make("figure", {}, make("figcaption", {}, make("b", {}, title), " ", note), holder, scale);
}

function tip(event, text) {
  const box = document.getElementById("tip");
  box.textContent = text;
  box.hidden = false;
  const wide = box.offsetWidth, x = event.clientX + 14;
  box.style.left = `${Math.max(4, x + wide > innerWidth - 4 ? event.clientX - wide - 10 : x)}px`;
  box.style.top = `${Math.max(4, event.clientY - box.offsetHeight - 10)}px`;
}
function hideTip() { document.getElementById("tip").hidden = true; }

// ---- small parts

function track(v, limit) {
  const fill = make("div", { class: `fill ${v < 0 ? "negative" : "positive"}` });
  const half = (50 * Math.min(Math.abs(v), limit)) / limit;
  fill.style.left = `${v < 0 ? 50 - half : 50}%`;
  fill.style.width = `${half}%`;
  return make("div", { class: "track", "aria-hidden": "true" }, fill);
}

function equation(terms, total) {
  const parts = [];
  terms.forEach(([value, label], k) => {
    if (k) parts.push(make("span", { class: "sign" }, "+"));
    parts.push(make("div", { class: "term" }, make("b", {}, signed(value, 6)), label));
  });
  if (total) {
    parts.push(make("span", { class: "sign" }, total[2] || "="));
    parts.push(make("div", { class: "term total" }, make("b", { "data-total": "" }, signed(total[0], 6)), total[1]));
  }
  return make("div", { class: "sum" }, parts);
}

const nameOf = (row) => data.nodes[row].name + (data.nodes[row].layer ? ` in ${data.nodes[row].layer}` : "");
const wireName = (w) => (w.to < 0 ? "the score itself" : `${data.nodes[w.from].name} → ${data.nodes[w.to].name}`);
const place = (index) => {
  const names = index.length === 4 ? ["", "channel", "row", "column"] : index.length === 2 ? ["", "number"] : [];
  return index.map((v, k) => (names[k] === "" ? "" : `${names[k] || "place"} ${v}`)).filter(Boolean).join(", ") || "the score";
};

// ---- the panel of one node

function lead(node) {
  const op = data.ops[node.op];
  const rule = state.rule;
  const facts = [
    [node.of === 1 ? "1" : shape(node.shape.slice(1)), node.of === 1 ? "number" : node.shape.length === 4 ? "channels × rows × columns" : "numbers"],
    [number(node.norm[rule]), "size of all gradients, ‖g‖"],
  ];
  if (node.gates !== null) facts.push([percent(node.gates), "of the gates are open"]);
  facts.push([signed(node.score[rule]), "sum of a·g"]);
  const words = [];
  if (state.row === 0) {
    words.push(make("p", {}, "The number that is explained: the net’s score for ", make("b", {}, data.classes[data.target]),
      ", before any softmax. Its own gradient is 1: were it larger by a little, it would be larger by just that."));
  } else if (state.row === last) {
    words.push(make("p", {}, "The walk has arrived, and every pixel has its gradient. Where it is red, a little more light raises ",
      "the score; where it is blue, it lowers it; where it is pale, the net hardly looks. This is the saliency map."));
  }
  if (op) {
    words.push(make("p", {}, make("b", {}, "On the way there: "), op.there));
    words.push(make("p", {}, make("b", {}, "On the way back: "), op.back));
  }
  return make("section", { class: "lead" },
    make("h2", {}, node.name, " ", make("span", {}, node.layer ? `in ${node.layer}` : "")),
    words,
    RULES[rule] ? make("p", { class: "warning" }, RULES[rule]) : null,
    make("ul", { class: "facts" }, facts.map(([value, label]) => make("li", {}, make("b", {}, value), label))),
  );
}

function mapsOf(node) {
  const c = state.channel < node.channels.length ? state.channel : -1;
  const which = c < 0 ? "" : `channel ${node.channels[c]}`;
  const out = ringAt(node);
  const tiles = make("div", { class: "tiles" },
    tile("a", state.row === last ? "Image x" : "Activation a", which || "mean of all channels", values(node.a[c + 1], node.size), node.size, "signed", out),
    tile("g", "Gradient g", which || "mean of all channels", values(node.g[state.rule][c + 1], node.size), node.size, "signed", out),
    tile("p", "Product a·g", which || "sum of all channels", values(node.p[state.rule][c + 1], node.size), node.size, "signed", out),
  );
  const parts = [make("h3", {}, state.row === last ? "The image, as the net is given it, and how much it matters" : "What came out of this step, and how much it matters"), tiles];
  if (out) parts.push(make("p", { class: "small" }, "The ring marks the cell through which the strongest path of the picked pixel goes."));
  if (node.channels.length) {
    const shared = Math.max(...node.channels.map((_, k) => limitOf(values(node.p[state.rule][k + 1], node.size))));
    const buttons = [-1, ...node.channels.keys()].map((k) => {
      const canvas = make("canvas", { "aria-hidden": "true" });
      const v = values(node.p[state.rule][k + 1], node.size);
      paint(canvas, v, node.size, k < 0 ? limitOf(v) : shared, "signed");
      return make("button", { type: "button", "aria-pressed": String(k === c), "data-channel": k,
        onclick: () => { state.channel = k; draw(); } }, canvas, k < 0 ? "all" : `${node.channels[k]}`);
    });
    parts.push(make("p", { class: "small channel-note" }, `Of ${node.shape[1]} channels, those that add or take most, by a·g. Press one to see it alone:`));
    parts.push(make("div", { class: "channels" }, buttons));
  }
  return make("section", {}, parts);
}

function ringAt(node) { // where the path of the picked pixel enters this node's output: the largest term of the sum one step below
  const cell = node.cells[state.pick];
  if (state.row === last) return data.picks[state.pick].at.slice(1);
  return cell && cell.terms.length && cell.terms[0][0].length === 4 ? cell.terms[0][0].slice(2) : null;
}

function unitsOf(node) {
  const limits = [node.a, node.g[state.rule], node.p[state.rule]].map(limitOf);
  const named = (u) => (data.nodes[0].sources[0] === state.row ? data.classes[u] : `${u}`);
  const rows = node.units.map((u, k) => make("tr", {}, make("td", { class: "name" }, node.of === 1 ? "" : named(u)),
    [node.a[k], node.g[state.rule][k], node.p[state.rule][k]].map((v, m) => [
      make("td", {}, signed(v)), make("td", { class: "bar" }, track(v, limits[m]))])));
  const head = make("tr", {}, make("th", { class: "name" }, node.of === 1 ? "" : "number"),
    ["activation a", "gradient g", "product a·g"].map((t) => make("th", { colspan: 2, class: "name" }, t)));
  const few = node.units.length < node.of ? `${node.units.length} of ${node.of} numbers: those that count most.` : "";
  return make("section", {}, make("h3", {}, "What came out of this step, and how much it matters"), few ? make("p", { class: "small" }, few) : null,
    make("div", { class: "scroll" }, make("table", { class: "bars" }, head, rows)));
}

function ledger() {
  const cut = data.cuts[state.row];
  const wires = cut.wires.map((k) => data.wires[k]);
  const score = data.cuts[0].wires.reduce((sum, k) => sum + data.wires[k].count, 0);
  const total = wires.reduce((sum, w) => sum + w.count, 0) + cut.biases;
  const parts = [make("h3", {}, "The account: where the score is now")];
  if (state.rule !== "gradient") {
    parts.push(make("p", { class: "warning" }, `The rule “${state.rule}” is no derivative, and keeps no account. Switch to “gradient” to see it.`));
    return make("section", { id: "ledger" }, parts);
  }
  const several = wires.length > 1 ? ` Here the cut goes through ${wires.length} wires, which belong together.` : "";
  parts.push(make("p", {}, "Cut the net where we stand, along the dashed line. What crosses the cut, each number times how much it matters, ",
    `is the whole score, but for the constants that the steps above have added themselves: their biases.${several}`));
  const terms = wires.map((w) => [w.count, wires.length > 1 ? wireName(w) : "sum of a·g"]);
  if (state.row) terms.push([cut.biases, "biases above"]);
  if (cut.open === null) {
    parts.push(equation(terms, [total, "the score"]));
  } else {
    parts.push(equation(terms, null));
    parts.push(make("p", { class: "warning", "data-open": cut.open },
      `This line stays open: above the cut, ${nameOf(cut.open)} is not known to be piecewise linear, and no sum of a·g accounts for it.`));
  }
  const own = data.cuts[state.row + 1];
  if (own && own.bias) parts.push(make("p", { class: "small" }, `Of what crosses here, ${signed(own.bias)} is this step’s own bias. Below it, that is counted with the biases.`));
  if (own && own.bias === null) parts.push(make("p", { class: "warning" }, "This step is not piecewise linear, or nobody has said that it is: the account ends here."));
  parts.push(chart(score));
  return make("section", { id: "ledger" }, parts);
}

function chart(score) {
  const flows = data.cuts.map((c) => c.wires.reduce((s, k) => s + data.wires[k].count, 0));
  const biases = data.cuts.map((c) => c.biases);
  const open = data.cuts.findIndex((c) => c.open !== null);
  const end = open < 0 ? last : open - 1;
  const all = [...flows.slice(0, end + 1), ...biases.slice(0, end + 1), 0, score];
  const low = Math.min(...all), high = Math.max(...all), W = 600, H = 90;
  const X = (k) => (k / last) * (W - 8) + 4, Y = (v) => 5 + ((high - v) / (high - low || 1)) * (H - 10);
  const line = (v, cls) => make("path", { class: cls, "vector-effect": "non-scaling-stroke",
    d: v.slice(0, end + 1).map((y, k) => `${k ? "L" : "M"}${X(k).toFixed(1)} ${Y(y).toFixed(1)}`).join("") });
  const straight = (cls, x1, y1, x2, y2) => make("line", { class: cls, x1, y1, x2, y2, "vector-effect": "non-scaling-stroke" });
  return make("div", {},
    make("svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", role: "img",
      "aria-label": "how the score is split between activations and biases, from the score on the left to the image on the right" },
      straight("zero", 4, Y(0), W - 4, Y(0)), straight("total", 4, Y(score), X(end), Y(score)),
      line(biases, "biases"), line(flows, "flows"), straight("now", X(state.row), 2, X(state.row), H - 2)),
    make("div", { class: "legend" }, make("span", { class: "flows" }, "a·g on the cut"), make("span", { class: "biases" }, "biases above it"),
      make("span", {}, `their sum, always ${signed(score)}`), "left: the score, right: the image"));
}

function flow(node) {
  const pick = data.picks[state.pick];
  const [c, i, j] = pick.at;
  const parts = [make("h3", {}, `Where the influence of pixel ${state.pick + 1} goes: row ${i}, column ${j}, channel ${c}`)];
  if (state.rule !== "gradient") {
    parts.push(make("p", { class: "warning" }, `The rule “${state.rule}” is no derivative; a pixel’s influence is followed by the gradient alone.`));
    return make("section", { id: "flow" }, parts);
  }
  parts.push(make("p", {}, "Now the other way round: raise this one pixel a little and let everything above respond, with all gates as they are. ",
    "Here the numbers then change by ", make("i", {}, "t"), ", and the score by ", make("i", {}, "t·g"),
    ". Whatever counts must pass every cut, so the sum is the same everywhere: the pixel’s gradient."));
  const wires = data.cuts[state.row].wires.map((k) => data.wires[k]);
  const sum = wires.reduce((s, w) => s + w.flow[state.pick], 0);
  parts.push(equation(wires.map((w) => [w.flow[state.pick], wires.length > 1 ? wireName(w) : "sum of t·g here"]),
    [sum, "change of the score per unit of this pixel"]));
  const key = String(state.pick);
  if (node.size && node.counts[key]) {
    const ring = ringAt(node);
    const tiles = [
      tile("reach", "Where it reaches", "sum of |t|", values(node.reach[key], node.size), node.size, "reach", ring),
      tile("counts", "Where it counts", "sum of t·g", values(node.counts[key], node.size), node.size, "signed", ring),
    ];
    if (node.stops[key]) {
      const [at, scale, ...size] = node.stops[key];
      const pool = node.gates === null;
      tiles.push(tile("stops", "Where it stops", pool ? "beside the maxima of the windows" : "at closed gates", values([at, scale], size), size, pool ? "pool" : "gate", null));
    }
    parts.push(make("div", { class: "tiles" }, tiles));
  } else if (!node.size && node.counts[key]) {
    const limit = limitOf(node.counts[key]);
    const order = [...node.units.keys()].sort((a, b) => Math.abs(node.counts[key][b]) - Math.abs(node.counts[key][a])).slice(0, 8);
    if (node.of > 1) parts.push(make("div", { class: "scroll" }, make("table", { class: "bars" }, order.map((k) =>
      make("tr", {}, make("td", { class: "name" }, `number ${node.units[k]}`), make("td", {}, signed(node.counts[key][k])),
        make("td", { class: "bar" }, track(node.counts[key][k], limit)))))));
  } else {
    parts.push(make("p", { class: "small" }, "This pixel has no way to this step."));
  }
  if (node.stops && node.stops[key]) {
    parts.push(make("p", { class: "small" }, `${percent(node.stopped[state.pick])} of all change that arrives here goes no further.`));
  }
  return make("section", { id: "flow" }, parts);
}

function arithmetic(node) {
  if (state.row === last) return null;
  const op = data.ops[node.op];
  const cell = node.cells[state.pick];
  const parts = [make("h3", {}, "One sum, written out"),
    make("dl", {}, make("dt", {}, "there"), make("dd", { class: "math" }, op.forward),
      make("dt", {}, "a change"), make("dd", { class: "math" }, op.push),
      make("dt", {}, "back"), make("dd", { class: "math" }, op.backward))];
  if (state.rule !== "gradient") {
    parts.push(make("p", { class: "small" }, "Single sums are written out for the gradient alone."));
  } else if (!cell) {
    parts.push(make("p", { class: "small" }, `The strongest path of pixel ${state.pick + 1} does not go through this step.`));
  } else {
    parts.push(...cellText(node, cell));
  }
  parts.push(make("details", {}, make("summary", {}, `The lines that computed it: ${op.file}`), make("pre", {}, make("code", {}, op.code))));
  if (node.where) parts.push(make("p", { class: "small" }, `This step was called for at ${node.where}.`));
  return make("section", { id: "arithmetic" }, parts);
}

function cellText(node, cell) {
  const parts = [make("p", {}, `On the strongest path of pixel ${state.pick + 1}, which always follows the largest product: the gradient of ${place(cell.index)} of what went into this step `
    + `(${nameOf(cell.from)}) is ${cell.count === 1 ? "a single product" : `a sum of ${cell.count.toLocaleString("en")} products`}.`)];
  if (cell.window && cell.count > 1) {
    const [gy, w, products] = cell.window;
    parts.push(make("p", { class: "small" }, `Filter ${cell.filter} has the largest product. The cell was seen from rows ${cell.rows.join(", ")} and columns `
      + `${cell.columns.join(", ")} of its output, each time through another weight: the kernel, turned around.`));
    parts.push(make("div", { class: "scroll" }, make("div", { class: "grids" }, grid("gradients gy of that window", gy),
      make("span", { class: "sign" }, "×"), grid("kernel, turned around", w), make("span", { class: "sign" }, "="), grid("products", products))));
    const rows = cell.filters.map(([f, v]) => [v, `filter ${f}`]);
    if (cell.rest[0]) rows.push([cell.rest[1], `${cell.rest[0]} other filters`]);
    parts.push(equation(rows, [cell.engine, "gx of the cell", "="]));
  } else {
    const rows = cell.terms.map(([at, factor, gy, product]) => make("tr", {}, make("td", {}, number(factor)), make("td", {}, "×"),
      make("td", {}, number(gy)), make("td", {}, "="), make("td", {}, signed(product)), make("td", { class: "name" }, `from ${place(at)}`)));
    if (cell.more[0]) rows.push(make("tr", {}, make("td", { colspan: 4 }, ""), make("td", {}, signed(cell.more[1])), make("td", { class: "name" }, `${cell.more[0].toLocaleString("en")} more`)));
    rows.push(make("tr", {}, make("td", { colspan: 4 }, "sum"), make("td", { "data-value": "" }, make("b", {}, signed(cell.value, 6))), make("td", { class: "name" }, "gx of the cell")));
    if (cell.terms.length) {
      parts.push(make("div", { class: "scroll" }, make("table", {}, make("tr", {}, ["factor", "", "gy", "", "product", ""].map((t, k) => make("th", { class: k > 4 ? "name" : "" }, t))), rows)));
    } else {
      parts.push(make("p", {}, "All of its products are 0: nothing comes back to this cell, and the path ends here."));
    }
  }
  if (cell.note) parts.push(make("p", { class: "small" }, `Here ${cell.note}.`));
  if (cell.others.length) {
    parts.push(make("p", { class: "small" }, "The cell is used elsewhere too, and its gradient is the sum of what all uses send back:"));
    parts.push(equation([[cell.engine, "by this step"], ...cell.others.map(([row, v]) => [v, `by ${nameOf(row)}`])], [cell.arrived, "gradient of the cell"]));
  }
  return parts;
}

function grid(caption, lines) {
  return make("table", {}, make("caption", {}, caption), lines.map((line) => make("tr", {}, line.map((v) => make("td", {}, number(v, 3))))));
}

// ---- the graph

const ROW = 26, LANE = 15;
const X = (lane) => 14 + LANE * lane, Y = (row) => ROW * row + ROW / 2;

function wirePath(row, to, lane) {
  const a = data.nodes[row].lane, b = data.nodes[to].lane;
  const bend = (x1, y1, x2, y2) => (x1 === x2 ? `L${x2} ${y2}` : `C${x1} ${y1 + ROW * 0.6} ${x2} ${y2 - ROW * 0.6} ${x2} ${y2}`);
  let d = `M${X(a)} ${Y(row)}`;
  if (to === row + 1) return d + bend(X(a), Y(row), X(b), Y(to));
  d += bend(X(a), Y(row), X(lane), Y(row + 1));
  if (to - 1 > row + 1) d += `L${X(lane)} ${Y(to - 1)}`;
  return d + bend(X(lane), Y(to - 1), X(b), Y(to));
}

function buildGraph() {
  const width = 28 + LANE * (data.width - 1), height = ROW * data.nodes.length;
  const svg = make("svg", { width: 400, height, "aria-hidden": "true" });
  data.nodes.forEach((node, row) => node.sources.forEach((to, k) =>
    svg.append(make("path", { class: "wire", "data-from": to, "data-to": row, d: wirePath(row, to, node.lanes[k]) }))));
  svg.append(make("line", { class: "scissors", x1: 2, x2: 304, y1: 0, y2: 0 }));
  data.nodes.forEach((node, row) => svg.append(make("circle", { class: node.sources.length > 1 ? "node join" : "node",
    "data-row": row, cx: X(node.lane), cy: Y(row), r: node.sources.length > 1 ? 6 : 4.5 })));
  const list = make("ol", { "aria-label": "steps from the score to the image" }, data.nodes.map((node, row) => {
    const button = make("button", { type: "button", "data-row": row, tabindex: -1, title: nameOf(row), onclick: () => go(row) },
      node.name, make("span", {}, node.layer));
    button.style.paddingLeft = `${width + 4}px`;
    return make("li", {}, button);
  }));
  document.getElementById("graph").append(list, svg);
}

function drawGraph() {
  const graph = document.getElementById("graph");
  const cut = new Set(data.cuts[state.row].wires.map((k) => `${data.wires[k].from} ${data.wires[k].to}`));
  for (const wire of graph.querySelectorAll(".wire")) {
    const key = `${wire.dataset.from} ${wire.dataset.to}`;
    wire.setAttribute("class", `wire ${cut.has(key) ? "cut" : Number(wire.dataset.from) < state.row ? "done" : ""}`);
  }
  for (const circle of graph.querySelectorAll("circle")) {
    const row = Number(circle.dataset.row);
    circle.classList.toggle("done", row < state.row);
    circle.classList.toggle("current", row === state.row);
  }
  const line = graph.querySelector(".scissors");
  for (const y of ["y1", "y2"]) line.setAttribute(y, ROW * state.row + 0.5);
  for (const button of graph.querySelectorAll("button")) {
    const here = Number(button.dataset.row) === state.row;
    button.tabIndex = here ? 0 : -1;
    if (here) button.setAttribute("aria-current", "step");
    else button.removeAttribute("aria-current");
    if (here && graph.scrollHeight > graph.clientHeight) {
      graph.scrollTop = Math.max(0, ROW * state.row - graph.clientHeight / 2);
    }
  }
}

// ---- the head and the whole

function buildHead() {
  document.getElementById("title").textContent = data.title;
  const order = [...data.logits.keys()].sort((a, b) => data.logits[b] - data.logits[a]);
  const top = Math.max(...data.logits), total = data.logits.reduce((s, v) => s + Math.exp(v - top), 0);
  const p = (k) => Math.exp(data.logits[k] - top) / total;
  const t = data.target;
  document.getElementById("verdict").append("The net gives ", make("strong", {}, data.classes[t]), ` a score of ${signed(data.logits[t])}, `
    + `which makes it ${p(t) > 0.999 ? "more than 99.9%" : percent(p(t))} sure. Which pixels decided that?`);
  const limit = Math.max(...data.logits.map(Math.abs)) || 1;
  const shown = order.slice(0, 5);
  if (!shown.includes(t)) shown.push(t);
  document.getElementById("logits").append(make("table", { class: "bars" }, shown.map((k) => make("tr", {},
    make("td", { class: "name" }, data.classes[k]), make("td", {}, signed(data.logits[k])), make("td", { class: "bar" }, track(data.logits[k], limit))))));
  document.getElementById("rules").append(make("span", { class: "small wide" }, "rule"), ...Object.keys(RULES).map((rule) =>
    make("button", { type: "button", "data-rule": rule, onclick: () => { state.rule = rule; draw(); } }, rule)));
  const [C, H, W] = data.image.shape;
  const canvas = document.getElementById("image");
  canvas.width = W;
  canvas.height = H;
  const image = new ImageData(W, H);
  for (let k = 0; k < H * W; k++) {
    for (let c = 0; c < 3; c++) image.data[4 * k + c] = bytes[data.image.at + (C === 3 ? c : 0) * H * W + k];
    image.data[4 * k + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  const [, , h, w] = data.nodes[last].size;
  data.picks.forEach(({ at: [, i, j] }, k) => {
    const dot = make("button", { type: "button", "data-pick": k, title: `pixel at row ${i}, column ${j}`, onclick: () => { state.pick = k; draw(); } }, `${k + 1}`);
    dot.style.left = `clamp(10px, ${(100 * (j + 0.5)) / w}%, calc(100% - 10px))`;
    dot.style.top = `clamp(10px, ${(100 * (i + 0.5)) / h}%, calc(100% - 10px))`;
    document.getElementById("dots").append(dot);
  });
}

function draw() {
  hideTip();
  const node = data.nodes[state.row];
  document.getElementById("count").textContent = `${state.row} of ${last}`;
  document.getElementById("back").disabled = state.row === 0;
  document.getElementById("next").disabled = state.row === last;
  for (const b of document.querySelectorAll("[data-rule]")) b.setAttribute("aria-pressed", String(b.dataset.rule === state.rule));
  for (const b of document.querySelectorAll("[data-pick]")) b.setAttribute("aria-pressed", String(Number(b.dataset.pick) === state.pick));
  drawGraph();
  const parts = [lead(node), node.size ? mapsOf(node) : unitsOf(node), arithmetic(node), flow(node), ledger()];
  document.getElementById("panel").replaceChildren(...parts.filter(Boolean));
}

function go(row) {
  const to = Math.min(Math.max(row, 0), last);
  if (to === state.row) return;
  document.getElementById("read").open = false; // to make room; it opens again where it is
  state.row = to;
  state.channel = -1;
  draw();
  if (document.activeElement && document.activeElement.closest("#graph")) document.querySelector(`#graph button[data-row="${to}"]`).focus();
}

function listen() {
  document.getElementById("back").addEventListener("click", () => go(state.row - 1));
  document.getElementById("next").addEventListener("click", () => go(state.row + 1));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const rows = { ArrowRight: state.row + 1, ArrowDown: state.row + 1, ArrowLeft: state.row - 1, ArrowUp: state.row - 1, Home: 0, End: last };
    if (event.key in rows) go(rows[event.key]);
    else if (/^[1-9]$/.test(event.key) && Number(event.key) <= data.picks.length) { state.pick = Number(event.key) - 1; draw(); }
    else if (event.key === "r" || event.key === "R") {
      const names = Object.keys(RULES);
      state.rule = names[(names.indexOf(state.rule) + 1) % names.length];
      draw();
    } else return;
    event.preventDefault();
  });
  let start = null;
  const panel = document.getElementById("panel");
  panel.addEventListener("touchstart", (event) => { start = event.touches.length === 1 && !event.target.closest(".scroll, pre") ? [event.touches[0].clientX, event.touches[0].clientY] : null; }, { passive: true });
  panel.addEventListener("touchend", (event) => {
    if (!start) return;
    const dx = event.changedTouches[0].clientX - start[0], dy = event.changedTouches[0].clientY - start[1];
    if (Math.abs(dx) > 60 && Math.abs(dx) > 2 * Math.abs(dy)) go(state.row + (dx < 0 ? 1 : -1));
  }, { passive: true });
  dark.addEventListener("change", draw);
}

async function start() {
  const packed = Uint8Array.from(atob(document.getElementById("blob").textContent), (c) => c.charCodeAt(0));
  bytes = new Uint8Array(await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());
  buildHead();
  buildGraph();
  listen();
  draw();
  document.body.dataset.ready = "";
}
start();
