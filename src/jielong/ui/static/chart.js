// Charts as SVG: lines over steps, tokens or time, with the values under the pointer.

import { h, svg } from "./dom.js";

const W = 440;
const H = 230;
const LEFT = 58;
const BOTTOM = 28;
const TOP = 8;
const CUT = 0.04; // share of a line, at its beginning, that does not decide the range of y

/**
 * Draw curves over the same x.
 * @param title what they are.
 * @param lines each `{name, colour, points: [[x, y], …], dots}`, its xs rising.
 * @param written how a value of x is written.
 */
export function chart(title, lines, written) {
  const drawn = lines.filter((line) => line.points.length);
  const xs = drawn.flatMap((line) => line.points.map(([x]) => x));
  const ys = drawn.flatMap(lateValues);
  const x = scale(0, Math.max(1e-9, ...xs), LEFT, W - 10);
  const [low, high] = range(ys);
  const y = scale(low, high, H - BOTTOM, TOP);
  const parts = [];
  for (const value of ticks(low, high)) {
    parts.push(svg("line", { x1: LEFT, x2: W - 10, y1: y(value), y2: y(value), class: "grid" }),
      svg("text", { x: LEFT - 6, y: y(value) + 4, class: "tick end" }, number(value)));
  }
  for (const value of ticks(0, Math.max(1e-9, ...xs))) {
    parts.push(svg("text", { x: x(value), y: H - 8, class: "tick" }, written(value)));
  }
  const clip = `clip-${++made}`;
  const frame = svg("clipPath", { id: clip },
    svg("rect", { x: LEFT, y: 0, width: W - LEFT, height: H - BOTTOM }));
  const shapes = drawn.map((line) => shape(line, x, y));
  const cursor = svg("line", { y1: TOP, y2: H - BOTTOM, class: "cursor", visibility: "hidden" });
  const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label":
    `${title}. ${drawn.map(summary(written)).join(" ")}` },
  frame, ...parts, svg("g", { "clip-path": `url(#${clip})` }, ...shapes), cursor);
  const told = h("figcaption", {}, ...latest(drawn));
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const at = x.back(((event.clientX - box.left) / box.width) * W);
    cursor.setAttribute("x1", x(at));
    cursor.setAttribute("x2", x(at));
    cursor.setAttribute("visibility", "visible");
    told.replaceChildren(...latest(drawn, at, written));
  });
  picture.addEventListener("pointerleave", () => {
    cursor.setAttribute("visibility", "hidden");
    told.replaceChildren(...latest(drawn));
  });
  return h("figure", { "data-chart": title }, h("h3", {}, title), picture, told);
}

let made = 0;

function lateValues({ points }) {
  const late = points.length >= 20 ? points.slice(Math.ceil(CUT * points.length)) : points;
  return late.map(([, y]) => y);
}

function shape({ points, colour, dots }, x, y) {
  const name = `line c${colour}${dots ? " dots" : ""}`;
  const path = points.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ");
  const marks = dots || points.length === 1
    ? points.map(([a, b]) => svg("circle", { cx: x(a), cy: y(b), r: 3, class: `dot c${colour}` }))
    : [];
  return svg("g", {}, svg("polyline", { points: path, class: name }), ...marks);
}

function latest(lines, at = Infinity, written = null) {
  const rows = lines.map(({ name, colour, points }) => {
    const point = points.findLast(([x]) => x <= at) ?? points[0];
    return h("span", {}, h("i", { class: `key c${colour}` }), `${name} `, h("b", {},
      number(point[1])));
  });
  return written ? [h("span", {}, written(at)), ...rows] : rows;
}

function summary(written) {
  return ({ name, points }) => {
    const [first, last] = [points[0], points.at(-1)];
    return `${name}: ${number(first[1])} (${written(first[0])}) → ${number(last[1])} (${
      written(last[0])}).`;
  };
}

function range(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const space = 0.06 * (high - low || Math.abs(high) || 1);
  return [low >= 0 ? Math.max(0, low - space) : low - space, high + space];
}

function scale(from, to, low, high) {
  const place = (value) => low + ((value - from) / (to - from || 1)) * (high - low);
  place.back = (at) => {
    const value = from + ((at - low) / (high - low)) * (to - from);
    return Math.min(to, Math.max(from, value));
  };
  return place;
}

function ticks(low, high) {
  const rough = (high - low) / 4;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * size).find((n) => n >= rough);
  const found = [];
  for (let n = Math.ceil(low / step); n * step <= high; n++) found.push(n * step);
  return found;
}

/** Write a value in few characters. */
export function number(value) {
  const size = Math.abs(value);
  if (size >= 10000) return `${Number((value / 1000).toPrecision(3))}k`;
  if (size >= 0.01 || size === 0) return String(Number(value.toPrecision(4)));
  return value.toExponential(1);
}
