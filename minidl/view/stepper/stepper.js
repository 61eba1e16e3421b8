"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const RULES = { // by name, what it changes
  gradient: "",
  guided: "The rule “guided” changes one thing: a relu also stops every gradient below zero, so that only what speaks for the score goes on. It draws clearer images, which say less about this net.",
  deconvnet: "The rule “deconvnet” changes one thing: a relu stops every gradient below zero, and does not ask whether its own gate was open.",
  lrp: "The rule “lrp” sends relevance back in place of gradients. It begins as the score itself, and each step shares it out among what went in, by what each contributed: evenly in the layers nearest the image, with more weight on what agrees (gamma) in convolutions above, and as it is in linear layers.",
};
const offered = (rule) => rule !== "lrp" || data.refused === null;
const relevance = () => state.rule === "lrp"; // then there are no gradients to show
const state = { row: 0, rule: "gradient", pick: 0, channel: -1, code: false, relevance: false };
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
const share = (v) => (v > 0 && v < 0.01 ? "less than 1%" : v > 0.99 && v < 1 ? "more than 99%" : `${Math.round(100 * v)}%`);
const shape = (s) => s.join(" × ");

function make(tag, properties = {}, ...children) {
  const svg = ["svg", "path", "circle", "line", "rect"].includes(tag);
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

// ---- pixels: each has a row in every column of numbers, a chain of cells, and its maps

const pixels = {}; // columns by name, `cells`, where the maps of each begin, and which pixel is at each place of the image

function loadPixels() {
  const { count, columns, cells, maps } = data.pixels;
  const types = { int16: Int16Array, int32: Int32Array, float32: Float32Array, uint8: Uint8Array };
  const widths = { at: 3, flow: data.wires.length, lost: 3 * last };
  for (const [name, [at, type]] of Object.entries(columns)) {
    const n = count * (widths[name] ?? 1);
    pixels[name] = new types[type](bytes.slice(at, at + n * types[type].BYTES_PER_ELEMENT).buffer);
  }
  pixels.cells = JSON.parse(new TextDecoder().decode(bytes.subarray(cells[0], cells[0] + cells[1])));
  let at = maps;
  pixels.begin = Array.from(pixels.length, (n) => (at += n) - n);
  pixels.place = new Map(Array.from({ length: count }, (_, k) => [`${pixels.at[3 * k + 1]},${pixels.at[3 * k + 2]}`, k]));
}

const flowOf = (k, wire) => pixels.flow[k * data.wires.length + wire];
const placeOf = (k) => [pixels.at[3 * k + 1], pixels.at[3 * k + 2]];
const lossOf = (k, row) => [0, 1, 2].map((kind) => pixels.lost[3 * (k * last + row) + kind] / 255);

function nearest(i, j) {
  const known = pixels.place.get(`${i},${j}`);
  if (known !== undefined) return known;
  let best = 0, least = Infinity;
  for (let k = 0; k < data.pixels.count; k++) {
    const [y, x] = placeOf(k), far = (y - i) ** 2 + (x - j) ** 2;
    if (far < least) [best, least] = [k, far];
  }
  return best;
}

let picked = null; // of the picked pixel its cells by row, and its maps by row

function look() {
  const cells = new Map();
  for (let n = pixels.cell[state.pick]; n >= 0; n = pixels.cells[n].above) cells.set(pixels.cells[n].row, pixels.cells[n]);
  picked = { cells, maps: unpacked(state.pick) };
}

function unpacked(k) { // of each row [reach, counts, stops], null where there is nothing; null where the page has no maps of it
  if (pixels.length[k] === 0) return null;
  const view = new DataView(bytes.buffer), levels = data.pixels.levels[k < data.pixels.numbered ? 0 : 1];
  let at = pixels.begin[k];
  const one = (size) => {
    const h = bytes[at];
    if (h === 0 || h === 255) { at += 1; return h === 0 ? null : "below"; }
    const [w, i0, j0] = bytes.subarray(at + 1, at + 4), scale = 2 ** view.getInt16(at + 4, true);
    const map = new Float32Array(size[0] * size[1]);
    at += 6;
    for (let i = 0; i < h; i++) for (let j = 0; j < w; j++) {
      const q = view.getInt8(at++) / levels;
      map[(i0 + i) * size[1] + j0 + j] = Math.sign(q) * q * q * scale;
    }
    return map;
  };
  const rows = data.nodes.map((node) => {
    const size = sizeOf(node);
    return [one(size), one(size), node.stops ? one(sizeOf(data.nodes[node.sources[0]])) : null];
  });
  for (let row = last; row >= 0; row--) if (rows[row][1] === "below") rows[row][1] = rows[row + 1][1];
  return rows;
}
const sizeOf = (node) => node.size || [1, node.units.length];

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

function tile(kind, title, note, v, size, map, ring, about = "") {
  const [h, w, H, W, fh, fw] = size;
  const limit = limitOf(v);
  const canvas = make("canvas", { "data-kind": kind, "data-limit": limit, role: "img", "aria-label": `${title}, ${note}: ${h} by ${w} values` });
  paint(canvas, v, size, limit, map);
  const show = (event) => {
    const box = canvas.getBoundingClientRect();
    const j = Math.min(w - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * w)));
    const i = Math.min(h - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * h)));
    tip(event, `row ${range(i, fh, H)}, column ${range(j, fw, W)}\n${about}${signed(v[i * w + j])}`);
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
    [number(node.norm[rule]), relevance() ? "size of all relevance, ‖R‖" : "size of all gradients, ‖g‖"],
  ];
  if (node.gates !== null) facts.push([percent(node.gates), "of the gates are open"]);
  facts.push([signed(node.score[rule]), relevance() ? "sum of R" : "sum of a·g"]);
  const words = [];
  if (state.row === 0) {
    words.push(make("p", {}, "The number that is explained: the net’s score for ", make("b", {}, data.classes[data.target]),
      relevance() ? ", before any softmax. All relevance is still here: the score itself."
        : ", before any softmax. Its own gradient is 1: were it larger by a little, it would be larger by just that."));
  } else if (state.row === last && relevance()) {
    words.push(make("p", {}, "The walk has arrived, and every pixel has its share of the score: red speaks for it, blue against it. ",
      "All shares, and what biases and stabilisers took on the way, add up to the score."));
  } else if (state.row === last) {
    words.push(make("p", {}, "The walk has arrived, and every pixel has its gradient. Where it is red, a little more light raises ",
      "the score; where it is blue, it lowers it; where it is pale, the net hardly looks. This is the saliency map."));
  }
  if (op && state.row > 0) {
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
  const tiles = make("div", { class: "tiles" }, [
    tile("a", state.row === last ? "Image x" : "Activation a", which || "mean of all channels", values(node.a[c + 1], node.size), node.size, "signed", out),
    relevance() ? null : tile("g", "Gradient g", which || "mean of all channels", values(node.g[state.rule][c + 1], node.size), node.size, "signed", out),
    tile("p", relevance() ? "Relevance R" : "Product a·g", which || "sum of all channels", values(node.p[state.rule][c + 1], node.size), node.size, "signed", out),
    state.relevance && !relevance() && offered("lrp") ? tile("r", "Relevance R", which || "sum of all channels", values(node.p.lrp[c + 1], node.size), node.size, "signed", out) : null,
  ].filter(Boolean));
  const parts = [make("h3", {}, state.row === last ? "The image, as the net is given it, and how much it matters" : "What came out of this step, and how much it matters"), tiles];
  parts.push(relevanceToggle());
  if (out) parts.push(make("p", { class: "small" }, "The ring marks the cell through which the strongest path of the picked pixel goes."));
  if (node.channels.length) {
    const shared = Math.max(...node.channels.map((_, k) => limitOf(values(node.p[state.rule][k + 1], node.size))));
    const buttons = [-1, ...node.channels.keys()].map((k) => {
      const canvas = make("canvas", { "aria-hidden": "true" });
      const v = values(node.p[state.rule][k + 1], node.size);
      paint(canvas, v, node.size, k < 0 ? limitOf(v) : shared, "signed");
      return make("button", { type: "button", "aria-pressed": String(k === c), "data-channel": k,
        "aria-label": k < 0 ? "all channels" : `channel ${node.channels[k]}`,
        onclick: () => { state.channel = k; draw(); document.querySelector(`.channels [data-channel="${k}"]`).focus(); } }, canvas, k < 0 ? "all" : `${node.channels[k]}`);
    });
    parts.push(make("p", { class: "small channel-note" }, `Of ${node.shape[1]} channels, those that add or take most, by a·g. Press one to see it alone:`));
    parts.push(make("div", { class: "channels" }, buttons));
  }
  return make("section", { id: "maps" }, parts.filter(Boolean));
}

function relevanceToggle() {
  if (relevance() || !offered("lrp")) return null;
  return make("button", { type: "button", id: "relevance", "aria-pressed": String(state.relevance),
    onclick: () => { state.relevance = !state.relevance; draw(); document.getElementById("relevance").focus(); } }, "show relevance (LRP)");
}

function ringAt(node) { // where the path of the picked pixel enters this node's output: the largest term of the sum one step below
  const cell = picked.cells.get(state.row);
  if (state.row === last) return placeOf(state.pick);
  return cell && cell.to && cell.to.length === 4 ? cell.to.slice(2) : null;
}

function unitsOf(node) {
  const beside = state.relevance && !relevance() && offered("lrp");
  const columns = relevance() ? [node.a, node.p.lrp] : [node.a, node.g[state.rule], node.p[state.rule], ...(beside ? [node.p.lrp] : [])];
  const limits = columns.map(limitOf);
  const named = (u) => (data.nodes[0].sources[0] === state.row ? data.classes[u] : `${u}`);
  const rows = node.units.map((u, k) => make("tr", {}, make("td", { class: "name" }, node.of === 1 ? "" : named(u)),
    columns.map((column, m) => [
      make("td", {}, signed(column[k])), make("td", { class: "bar" }, track(column[k], limits[m]))])));
  const head = make("tr", {}, node.of === 1 ? make("td") : make("th", { class: "name" }, "number"),
    (relevance() ? ["activation a", "relevance R"] : ["activation a", "gradient g", "product a·g", ...(beside ? ["relevance R"] : [])]).map((t) => make("th", { colspan: 2, class: "name" }, t)));
  const few = node.units.length < node.of ? `${node.units.length} of ${node.of} numbers: those that count most.` : "";
  return make("section", { id: "maps" }, make("h3", {}, "What came out of this step, and how much it matters"), few ? make("p", { class: "small" }, few) : null,
    scroll("numbers of this step", make("table", { class: "bars" }, head, rows)), relevanceToggle());
}

function ledger() {
  const cut = data.cuts[state.row];
  const wires = cut.wires.map((k) => data.wires[k]);
  const score = data.cuts[0].wires.reduce((sum, k) => sum + data.wires[k].count, 0);
  const total = wires.reduce((sum, w) => sum + w.count, 0) + cut.biases;
  const parts = [make("h3", {}, "The account: where the score is now")];
  if (relevance()) {
    parts.push(make("p", {}, "Cut the net where we stand, along the dashed line. The relevance that crosses the cut, and what the biases of the steps above and ",
      "the small numbers that keep them from dividing by zero have taken, are the score. A step that is a batch norm belongs to the layer below it."));
    parts.push(equation([[cut.relevance, "relevance here"], [cut.taken, "biases and stabilisers above"]], [cut.relevance + cut.taken, "the score"]));
    return make("section", { id: "ledger" }, parts);
  }
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

const LOST = { // by kind, in the order of the data: what happens there
  gated: "stops at closed gates",
  zero: "meets a factor of 0: it is left out here, or has a weight of 0",
  summed: "is summed away: plus and minus meet",
};

function lossWords(k, row) { // what a step loses of pixel k, the most first
  const node = data.nodes[row];
  const found = Object.keys(LOST).map((kind, n) => [lossOf(k, row)[n], kind]).filter(([v]) => v > 0).sort((a, b) => b[0] - a[0]);
  return found.map(([v, kind]) => `${share(v)} ${kind === "gated" && node.gates === null ? "stops beside the maxima of the windows" : LOST[kind]}`);
}

function fate(k) { // in words: what becomes of a pixel, and where it dies or loses most
  const d = pixels.derivative[k], dies = pixels.dies[k], worst = pixels.worst[k];
  if (dies >= 0) return `Nothing of it reaches the score. It dies at step ${dies}, ${nameOf(dies)}: ${lossWords(k, dies)[0] ?? "all that is left adds up to 0"}.`;
  const arrives = `It moves the score by ${signed(d)} per unit.`;
  if (worst < 0) return `${arrives} No step loses any of it.`;
  return `${arrives} It loses most at step ${worst}, ${nameOf(worst)}: ${lossWords(k, worst)[0]}.`;
}

function flow(node) {
  const k = state.pick, [i, j] = placeOf(k);
  const parts = [make("h3", {}, `Where the influence of the picked pixel goes: row ${i}, column ${j}, channel ${pixels.at[3 * k]}`)];
  if (state.rule !== "gradient") {
    parts.push(make("p", { class: "warning" }, `The rule “${state.rule}” is no derivative; a pixel’s influence is followed by the gradient alone.`));
    return make("section", { id: "flow" }, parts);
  }
  parts.push(make("p", {}, "Now the other way round: raise this one pixel a little and let everything above respond, with all gates as they are. ",
    "Here the numbers then change by ", make("i", {}, "t"), ", and the score by ", make("i", {}, "t·g"),
    ". Whatever counts must pass every cut, so the sum is the same everywhere: the pixel’s gradient."));
  const wires = data.cuts[state.row].wires;
  const sum = wires.reduce((s, w) => s + flowOf(k, w), 0);
  parts.push(equation(wires.map((w) => [flowOf(k, w), wires.length > 1 ? wireName(data.wires[w]) : "sum of t·g here"]),
    [sum, "change of the score per unit of this pixel"]));
  const [reach, counts, stops] = picked.maps ? picked.maps[state.row] : [null, null, null];
  if (!picked.maps) {
    parts.push(make("p", { class: "small" }, "To keep this page small, maps are kept of the numbered pixels alone."));
  } else if (!reach) {
    parts.push(make("p", { class: "small" }, "This pixel has no way to this step."));
  } else if (node.size) {
    const ring = ringAt(node), none = new Float32Array(node.size[0] * node.size[1]);
    const tiles = [
      tile("reach", "Where it reaches", "sum of |t|", reach, node.size, "reach", ring, "about "),
      tile("counts", "Where it counts", "sum of t·g", counts || none, node.size, "signed", ring, "about "),
    ];
    const below = node.sources.length ? data.nodes[node.sources[0]].size : null;
    if (stops && below) {
      const pool = node.gates === null;
      tiles.push(tile("stops", "Where it stops", pool ? "beside the maxima of the windows" : "at closed gates", stops, below, pool ? "pool" : "gate", null, "about "));
    }
    parts.push(make("div", { class: "tiles" }, tiles));
  } else if (counts && node.of > 1) {
    const limit = limitOf(counts);
    const order = [...node.units.keys()].sort((a, b) => Math.abs(counts[b]) - Math.abs(counts[a])).slice(0, 8);
    parts.push(scroll("where it counts", make("table", { class: "bars" }, order.map((n) =>
      make("tr", {}, make("td", { class: "name" }, `number ${node.units[n]}`), make("td", {}, `≈ ${signed(counts[n], 2)}`),
        make("td", { class: "bar" }, track(counts[n], limit)))))));
  }
  if (state.row < last) {
    const words = state.row < pixels.dies[k] ? ["nothing arrives"] : lossWords(k, state.row);
    parts.push(make("p", { class: "small", id: "lost" }, `Of the pixel’s influence, this step loses: ${words.join("; ") || "nothing"}.`));
  }
  return make("section", { id: "flow" }, parts);
}

function arithmetic(node) {
  if (state.row === last) return null;
  const op = data.ops[node.op];
  const cell = picked.cells.get(state.row);
  const parts = [make("h3", {}, "One sum, written out"),
    state.row === 0 ? make("p", {}, op.there, " ", op.back) : null,
    make("dl", {}, make("dt", {}, "forward"), make("dd", { class: "math" }, op.forward),
      make("dt", {}, "push (JVP)"), make("dd", { class: "math" }, op.push),
      make("dt", {}, "backward (VJP)"), make("dd", { class: "math" }, op.backward))];
  if (state.rule !== "gradient") {
    parts.push(make("p", { class: "small" }, "Single sums are written out for the gradient alone."));
  } else if (!cell) {
    parts.push(make("p", { class: "small" }, "The strongest path of the picked pixel does not go through this step."));
  } else {
    parts.push(...cellText(node, cell));
  }
  const code = make("details", { id: "code", open: state.code ? "" : null, ontoggle: reachable },
    make("summary", {}, `The lines that computed it: ${op.code.filter((c) => c.what !== "push").map((c) => c.file).join(", ")}`),
    op.code.map(({ what, file, text }, n) => [
      make("p", { class: "small" }, make("b", {}, what), n && what !== "push" ? ", the kernel as plain text, which the compiled one agrees with" : "", ` · ${file}`),
      text ? make("pre", { role: "group", "aria-label": `${what}, ${file}` }, make("code", {}, text)) : null]));
  parts.push(code);
  if (node.where) parts.push(make("p", { class: "small" }, `This step was called for at ${node.where}.`));
  return make("section", { id: "arithmetic" }, parts.filter(Boolean));
}

function cellText(node, cell) {
  const parts = [make("p", {}, `On the strongest path of the picked pixel, which always follows the largest product: the gradient of ${place(cell.index)} of what went into this step `
    + `(${nameOf(cell.from)}) is ${cell.count === 1 ? "a single product" : `a sum of ${cell.count.toLocaleString("en")} products`}.`)];
  if (cell.window && cell.count > 1) {
    const [gy, w] = cell.window, products = gy.map((line, i) => line.map((v, j) => v * w[i][j]));
    parts.push(make("p", { class: "small" }, `Filter ${cell.filter} has the largest product. The cell was seen from rows ${cell.rows.join(", ")} and columns `
      + `${cell.columns.join(", ")} of its output, each time through another weight: the kernel, turned around.`));
    parts.push(scroll("gradients times kernel", make("div", { class: "grids" }, grid("gradients gy of that window", gy),
      make("span", { class: "sign" }, "×"), grid("kernel, turned around", w), make("span", { class: "sign" }, "="), grid("products", products))));
    const rows = cell.filters.map(([f, v]) => [v, `filter ${f}`]);
    if (cell.rest[0]) rows.push([cell.rest[1], `${cell.rest[0]} other filters`]);
    parts.push(equation(rows, [cell.engine, "gx of the cell", "="]));
  } else {
    const rows = cell.terms.map(([at, factor, gy]) => make("tr", {}, make("td", {}, number(factor)), make("td", {}, "×"),
      make("td", {}, number(gy)), make("td", {}, "="), make("td", {}, signed(factor * gy)), make("td", { class: "name" }, `from ${place(at)}`)));
    if (cell.more[0]) rows.push(make("tr", {}, make("td", { colspan: 4 }, ""), make("td", {}, signed(cell.more[1])), make("td", { class: "name" }, `${cell.more[0].toLocaleString("en")} more`)));
    rows.push(make("tr", {}, make("td", { colspan: 4 }, "sum"), make("td", { "data-value": "" }, make("b", {}, signed(cell.value, 6))), make("td", { class: "name" }, "gx of the cell")));
    if (cell.terms.length) {
      parts.push(scroll("the terms of the sum", make("table", {}, make("tr", {}, ["factor", "", "gy", "", "product", ""].map((t, k) => make(t ? "th" : "td", { class: k > 4 ? "name" : "" }, t))), rows)));
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

function scroll(label, ...children) { // what may be wider than the page; `reachable` makes it so for keys
  return make("div", { class: "scroll", role: "group", "aria-label": label }, children);
}

function reachable() {
  for (const part of document.querySelectorAll("#panel .scroll, #panel pre")) {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
    else part.removeAttribute("tabindex");
  }
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
    const button = make("button", { type: "button", "data-row": row, tabindex: -1, onclick: () => go(row) },
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

// ---- the strip: what every step loses of the picked pixel, the score on the left and the image on the right

function buildStrip() {
  const strip = document.getElementById("strip");
  strip.setAttribute("aria-valuemax", last);
  const svg = make("svg", { viewBox: `0 0 ${last + 1} 100`, preserveAspectRatio: "none", "aria-hidden": "true" });
  for (let row = 0; row <= last; row++) {
    svg.append(...["goes", "summed", "zero", "gated"].map((kind) => make("rect", { class: kind, "data-row": row, "data-kind": kind, x: row + 0.06, width: 0.88, y: 0, height: 0 })));
  }
  svg.append(make("rect", { class: "here", x: 0, y: 0, width: 1, height: 100 }));
  strip.append(svg, make("span", { class: "worst", "aria-hidden": "true" }, "▼"));
  const step = (event) => {
    const box = svg.getBoundingClientRect();
    go(Math.floor(((event.clientX - box.left) / box.width) * (last + 1)));
  };
  strip.addEventListener("pointerdown", (event) => { strip.setPointerCapture(event.pointerId); step(event); });
  strip.addEventListener("pointermove", (event) => {
    if (event.buttons && strip.hasPointerCapture(event.pointerId)) return step(event);
    const box = svg.getBoundingClientRect(), row = Math.floor(((event.clientX - box.left) / box.width) * (last + 1));
    if (row >= 0 && row <= last) tip(event, stepWords(row));
  });
  strip.addEventListener("pointerleave", hideTip);
  document.getElementById("worst").addEventListener("click", () => go(pixels.worst[state.pick]));
}

function stepWords(row) {
  const lost = row === last ? [] : row < pixels.dies[state.pick] ? ["nothing arrives"] : lossWords(state.pick, row);
  return [`step ${row}: ${nameOf(row)}`, ...lost].join("\n");
}

function drawStrip() {
  const strip = document.getElementById("strip"), k = state.pick, worst = pixels.worst[k];
  for (let row = 0; row <= last; row++) {
    const arrives = row >= pixels.dies[k], [gated, zero, summed] = row === last ? [0, 0, 0] : lossOf(k, row);
    const rest = Math.max(0, 1 - gated - zero);
    let y = 100;
    for (const [kind, part] of [["goes", rest * (1 - summed)], ["summed", rest * summed], ["zero", zero], ["gated", gated]]) {
      const bar = strip.querySelector(`[data-row="${row}"][data-kind="${kind}"]`), height = arrives ? 100 * part : 0;
      y -= height;
      bar.setAttribute("y", y);
      bar.setAttribute("height", height);
    }
  }
  strip.querySelector(".here").setAttribute("x", state.row);
  strip.setAttribute("aria-valuenow", state.row);
  strip.setAttribute("aria-valuetext", stepWords(state.row).replaceAll("\n", ", "));
  const mark = strip.querySelector(".worst"), button = document.getElementById("worst");
  mark.hidden = button.hidden = worst < 0;
  mark.style.left = `${(100 * (worst + 0.5)) / (last + 1)}%`;
  button.textContent = `go to step ${worst}`;
  const [i, j] = placeOf(k);
  document.getElementById("fate").textContent = `Pixel at row ${i}, column ${j}. ${fate(k)}`;
}

// ---- the image, where pixels are picked

function pick(k) {
  state.pick = k;
  look();
  draw();
}

function pickAt(i, j) {
  const [, , H, W] = data.nodes[last].size;
  const k = nearest(Math.min(Math.max(i, 0), H - 1), Math.min(Math.max(j, 0), W - 1)), [y, x] = placeOf(k);
  pick(k);
  say(y === i && x === j ? "" : `Of this image not every pixel is kept. Row ${y}, column ${x} is the nearest to row ${i}, column ${j}.`);
}

function movePick(di, dj) { // to the next pixel that is kept, in an image of which not all are
  const [, , H, W] = data.nodes[last].size;
  let [i, j] = placeOf(state.pick);
  for (;;) {
    i += di;
    j += dj;
    if (i < 0 || j < 0 || i >= H || j >= W) return;
    const k = nearest(i, j);
    if (k !== state.pick && Math.sign(di) * (placeOf(k)[0] - placeOf(state.pick)[0]) + Math.sign(dj) * (placeOf(k)[1] - placeOf(state.pick)[1]) > 0) return pick(k);
  }
}

function typed(text) {
  const [, , H, W] = data.nodes[last].size, found = /^\s*(\d+)\s*[,; ]\s*(\d+)\s*$/.exec(text);
  if (found && Number(found[1]) < H && Number(found[2]) < W) return pickAt(Number(found[1]), Number(found[2]));
  say(`Pixel: expected row, column, as in 12, 7, with rows 0 to ${H - 1} and columns 0 to ${W - 1}, got “${text.trim()}”.`);
}

function say(text) { // a short note, until the next thing is done
  const note = document.getElementById("note");
  note.textContent = text;
  note.hidden = text === "";
}

// ---- the address: #step=8&pixel=12,7

let later = 0;

function writeAddress() { // a moment later, as browsers take only so many changes a minute
  clearTimeout(later);
  later = setTimeout(() => {
    const address = `#step=${state.row}&pixel=${placeOf(state.pick).join(",")}`;
    if (location.hash === address) return;
    try { history.replaceState(null, "", address); } catch { /* inside another page, as in a notebook, it has no address of its own */ }
  }, 200);
}

function readAddress() {
  const wrong = [], [, , H, W] = data.nodes[last].size;
  let row = state.row, at = null;
  for (const part of location.hash.slice(1).split("&").filter(Boolean)) {
    const [name, value] = [part.split("=")[0], decoded(part.slice(part.indexOf("=") + 1))];
    const places = /^(\d{1,6}),(\d{1,6})$/.exec(value);
    if (name === "step" && /^\d{1,6}$/.test(value) && Number(value) <= last) row = Number(value);
    else if (name === "step") wrong.push(`step=${value}: expected 0 to ${last}`);
    else if (name === "pixel" && places && Number(places[1]) < H && Number(places[2]) < W) at = [Number(places[1]), Number(places[2])];
    else if (name === "pixel") wrong.push(`pixel=${value}: expected row,column, rows 0 to ${H - 1}, columns 0 to ${W - 1}`);
    else wrong.push(`${part}: expected step and pixel`);
  }
  if (row !== state.row) Object.assign(state, { row, channel: -1 });
  if (at) pickAt(...at);
  else pick(state.pick);
  if (wrong.length) say(`Not taken from the address: ${wrong.join("; ").slice(0, 200)}.`);
}

function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; }
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
    make("button", { type: "button", "data-rule": rule, disabled: offered(rule) ? null : "", "aria-describedby": offered(rule) ? null : "refused", onclick: () => { state.rule = rule; draw(); } }, rule)));
  const refused = document.getElementById("refused");
  refused.hidden = data.refused === null;
  refused.textContent = `No lrp for this net: ${data.refused}.`;
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
  const at = (mark, [i, j]) => {
    mark.style.left = `${(100 * (j + 0.5)) / w}%`;
    mark.style.top = `${(100 * (i + 0.5)) / h}%`;
    return mark;
  };
  const numbers = Array.from({ length: data.pixels.numbered }, (_, k) => k);
  document.getElementById("marks").append(...numbers.map((k) => at(make("span", { class: "mark" }, `${k + 1}`), placeOf(k))), make("span", { id: "here" }));
  document.getElementById("numbered").append(...numbers.map((k) => make("button", { type: "button", "data-pick": k,
    "aria-label": `${k + 1}: row ${placeOf(k)[0]}, column ${placeOf(k)[1]}`, onclick: () => { say(""); pick(k); } }, `${k + 1}`)));
  document.getElementById("places").textContent = `rows 0–${h - 1}, columns 0–${w - 1}`;
}

function draw() {
  hideTip();
  const node = data.nodes[state.row], [i, j] = placeOf(state.pick), [, , h, w] = data.nodes[last].size;
  document.getElementById("count").textContent = `step ${state.row} of ${last}`;
  document.getElementById("back").disabled = state.row === 0;
  document.getElementById("next").disabled = state.row === last;
  for (const b of document.querySelectorAll("[data-rule]")) b.setAttribute("aria-pressed", String(b.dataset.rule === state.rule));
  for (const b of document.querySelectorAll("[data-pick]")) b.setAttribute("aria-pressed", String(Number(b.dataset.pick) === state.pick));
  const here = document.getElementById("here");
  here.style.left = `${(100 * (j + 0.5)) / w}%`;
  here.style.top = `${(100 * (i + 0.5)) / h}%`;
  document.getElementById("pixel").value = `${i}, ${j}`;
  drawGraph();
  drawStrip();
  const code = document.getElementById("code");
  if (code) state.code = code.open; // asked here: the browser tells of a press on it later than the next key may come
  const maps = node.size ? mapsOf(node) : unitsOf(node);
  const parts = state.row ? [lead(node), maps, arithmetic(node), flow(node), ledger()] : [lead(node), maps, flow(node), ledger(), arithmetic(node)];
  document.getElementById("panel").replaceChildren(...parts.filter(Boolean));
  reachable();
  document.getElementById("said").textContent = `Step ${state.row}, ${nameOf(state.row)}. Pixel ${i}, ${j}.`;
  writeAddress();
}

function go(row) {
  const to = Math.min(Math.max(row, 0), last);
  if (to === state.row) return;
  say("");
  state.row = to;
  state.channel = -1;
  draw();
  if (document.activeElement && document.activeElement.closest("#graph")) document.querySelector(`#graph button[data-row="${to}"]`).focus();
}

function listen() {
  document.getElementById("back").addEventListener("click", () => go(state.row - 1));
  document.getElementById("next").addEventListener("click", () => go(state.row + 1));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented) return;
    const inside = (places) => event.target.closest && event.target.closest(places);
    if (inside("input, textarea, select, #panel [tabindex]")) return; // typing, or scrolling sideways
    if (keyed(event.key, inside)) event.preventDefault();
  });
  const frame = document.getElementById("frame");
  frame.addEventListener("click", (event) => {
    const box = frame.getBoundingClientRect(), [, , H, W] = data.nodes[last].size;
    pickAt(Math.floor(((event.clientY - box.top) / box.height) * H), Math.floor(((event.clientX - box.left) / box.width) * W));
  });
  const field = document.getElementById("pixel");
  field.addEventListener("change", () => typed(field.value));
  let start = null;
  const panel = document.getElementById("panel");
  panel.addEventListener("touchstart", (event) => { start = event.touches.length === 1 && !event.target.closest(".scroll, pre") ? [event.touches[0].clientX, event.touches[0].clientY] : null; }, { passive: true });
  panel.addEventListener("touchend", (event) => {
    if (!start) return;
    const dx = event.changedTouches[0].clientX - start[0], dy = event.changedTouches[0].clientY - start[1];
    if (Math.abs(dx) > 60 && Math.abs(dx) > 2 * Math.abs(dy)) go(state.row + (dx < 0 ? 1 : -1));
  }, { passive: true });
  dark.addEventListener("change", draw);
  addEventListener("resize", reachable);
  addEventListener("hashchange", readAddress);
}

function keyed(key, inside) { // whether the key was one of ours; up and down, Home and End scroll the page but where a list or the image has the focus
  const image = inside("#frame"); // digits and letters act there alone: who speaks to a browser types them elsewhere without wanting to (WCAG 2.1.4)
  const moves = { ArrowRight: [0, 1], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowUp: [-1, 0] };
  const ends = { Home: 0, End: last };
  if (image && key in moves) { say(""); movePick(...moves[key]); } // in the image, a pixel further
  else if (key === "ArrowRight" || key === "ArrowLeft") go(state.row + moves[key][1]);
  else if (inside("#graph") && key in moves) go(state.row + moves[key][0]);
  else if (inside("#strip") && key in moves) go(state.row - moves[key][0]);
  else if (inside("#graph, #strip") && key in ends) go(ends[key]);
  else if (image && /^[1-9]$/.test(key) && Number(key) <= data.pixels.numbered) { say(""); pick(Number(key) - 1); }
  else if (image && (key === "r" || key === "R")) {
    const names = Object.keys(RULES).filter(offered);
    state.rule = names[(names.indexOf(state.rule) + 1) % names.length];
    draw();
  } else return false;
  return true;
}

async function start() {
  const packed = Uint8Array.from(atob(document.getElementById("blob").textContent), (c) => c.charCodeAt(0));
  bytes = new Uint8Array(await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());
  loadPixels();
  buildHead();
  buildGraph();
  buildStrip();
  listen();
  readAddress();
  document.body.dataset.ready = "";
}
start();
