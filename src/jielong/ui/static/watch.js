// Runs as they train: curves and samples, several beside each other, live.

import { chart, number } from "./chart.js";
import { choices, field, h, visible } from "./dom.js";
import { runs, short } from "./players.js";
import { ask } from "./server.js";
import { say } from "./words.js";

const EVERY_MS = 1500;
const CHARTS = [
  ["Held-out text (bits per byte)", [["held_out_bits_per_byte", true]]],
  ["Loss (nats per token)", [["loss", false], ["held_out_loss", true]]],
  ["Learning rate", [["learning_rate", false]]],
  ["Gradient norm", [["grad_norm", false]]],
  ["Speed (tokens per second)", [["tokens_per_second", false]]],
  ["Busiest expert over the mean", [["imbalance", false]]],
];
const kept = { off: new Set(), axis: "steps", prompt: null, all: false, found: new Map() };

/** Make the view. */
export function watchView() {
  return new Watch().element;
}

class Watch {
  constructor() {
    this.axis = h("select", { "data-is": "axis",
      onchange: () => { kept.axis = this.axis.value; this.draw(); } });
    choices(this.axis, [["steps", say("steps")], ["tokens", say("tokens")],
      ["seconds", say("time")]]);
    this.axis.value = kept.axis;
    this.picks = h("div", { class: "picks", role: "group", "aria-label": say("Runs") });
    this.tiles = h("div", { class: "tiles" });
    this.charts = h("div", { class: "charts" });
    this.prompt = h("select", { "data-is": "prompt",
      onchange: () => { kept.prompt = this.prompt.value; this.drawSamples(); } });
    this.all = h("input", { type: "checkbox", checked: kept.all,
      onchange: () => { kept.all = this.all.checked; this.drawSamples(); } });
    this.samples = h("div", { class: "samples" });
    this.element = h("section", { class: "watch", "aria-label": say("Watch") },
      h("div", { class: "card controls" }, this.picks, field(say("Over"), this.axis)),
      this.tiles, this.charts,
      h("div", { class: "card" }, h("h2", {}, say("What it writes")),
        h("div", { class: "controls" }, field(say("Prompt"), this.prompt),
          field(say("all steps"), this.all, "check")), this.samples));
    this.timer = setInterval(() => this.poll(), EVERY_MS);
    this.element.addEventListener("leave", () => clearInterval(this.timer));
    this.draw();
    this.poll();
  }

  get watched() {
    return runs.list.filter((run) => run.is_run && !kept.off.has(run.run));
  }

  async poll() {
    if (document.visibilityState !== "visible" || this.asking) return;
    this.asking = true;
    let fresh = false;
    for (const { run } of this.watched) {
      const tag = kept.found.get(run)?.tag ?? "";
      try {
        const found = await ask(`api/watch?run=${run}&tag=${encodeURIComponent(tag)}`);
        if (found) kept.found.set(run, found);
        fresh ||= Boolean(found);
        this.lost = "";
      } catch (error) {
        fresh ||= this.lost !== error.message;
        this.lost = error.message;
      }
    }
    this.asking = false;
    if (fresh && this.element.isConnected) this.draw();
  }

  get shown() {
    return this.watched.filter((run) => kept.found.has(run.run))
      .map((run) => ({ ...kept.found.get(run.run), name: run.name, colour: run.run % 8 }));
  }

  draw() {
    this.drawPicks();
    const shown = this.shown;
    const none = runs.list.some((run) => run.is_run) ? say("nothing is recorded yet")
      : say("There is no run here to watch, only models.");
    this.tiles.replaceChildren(...shown.map(tile),
      ...(this.lost ? [h("p", { class: "wrong" }, this.lost)] : []),
      ...(shown.length ? [] : [h("p", { class: "dim" }, none)]));
    const figures = CHARTS.map(([title, curves]) => this.figure(say(title), curves, shown));
    this.charts.replaceChildren(...figures.filter(Boolean));
    this.drawSamples();
  }

  drawPicks() {
    const able = runs.list.filter((run) => run.is_run);
    if (this.picks.childElementCount === able.length) return;
    this.picks.replaceChildren(...able.map((run) => {
      const box = h("input", { type: "checkbox", checked: !kept.off.has(run.run), onchange: () => {
        kept.off[box.checked ? "delete" : "add"](run.run);
        this.draw();
        this.poll();
      } });
      return h("label", { class: "check" }, box, h("i", { class: `key c${run.run % 8}` }), run.name);
    }));
  }

  figure(title, curves, shown) {
    const lines = shown.flatMap((run) => curves.map(([name, dots], place) => ({
      name: [shown.length > 1 ? run.name : "", curves.length > 1
        ? (dots ? say("held-out") : say("training")) : ""].filter(Boolean).join(" · ") || say("latest"),
      colour: shown.length > 1 ? run.colour : place,
      dots,
      points: (run.curves[name] ?? []).map(([step, y]) => [this.over(run, step), y]),
    })));
    if (!lines.some((line) => line.points.length)) return null;
    const write = kept.axis === "seconds" ? duration : (value) => short(value);
    return chart(title, lines, write);
  }

  /** The place of a step on the axis that is chosen. */
  over(run, step) {
    if (kept.axis === "steps") return step;
    const points = [[0, 0], ...(run.curves.axes[kept.axis] ?? [])];
    const next = points.findIndex(([x]) => x >= step);
    if (next < 0) return points.at(-1)[1];
    if (next === 0) return 0;
    const [[x0, y0], [x1, y1]] = [points[next - 1], points[next]];
    return y0 + ((step - x0) / (x1 - x0 || 1)) * (y1 - y0);
  }

  drawSamples() {
    const shown = this.shown;
    const prompts = [...new Set(shown.flatMap((run) => run.samples.map((s) => s.prompt)))];
    choices(this.prompt, prompts.map((prompt) => [prompt, visible(prompt).slice(0, 80)]));
    if (prompts.includes(kept.prompt)) this.prompt.value = kept.prompt;
    const parts = shown.map((run) => {
      const found = run.samples.filter((sample) => sample.prompt === this.prompt.value);
      const steps = [...new Set(found.map((sample) => sample.step))];
      const chosen = new Set(kept.all ? steps : spread(steps));
      const rows = found.filter((sample) => chosen.has(sample.step)).map((sample) => h("tr", {},
        h("th", { scope: "row" }, say("step {n}", { n: sample.step.toLocaleString("en") })),
        h("td", {}, h("b", {}, visible(sample.prompt)), visible(sample.text))));
      return h("div", {}, shown.length > 1 ? h("h3", {}, run.name) : null, h("table", {}, ...rows));
    });
    this.samples.replaceChildren(...(prompts.length ? parts
      : [h("p", { class: "dim" }, say("no samples yet"))]));
  }
}

/** Steps near 1, 3, 10, 30, 100 … and the last: as fast as a model learns. */
function spread(steps) {
  const chosen = new Set([steps[0], steps.at(-1)]);
  for (let size = 1; size < steps.at(-1); size *= 10) {
    for (const goal of [size, 3 * size]) {
      const distance = (step) => Math.abs(Math.log(Math.max(1, step) / goal));
      const nearest = steps.reduce((a, b) => (distance(b) < distance(a) ? b : a));
      if (distance(nearest) < 0.5) chosen.add(nearest);
    }
  }
  return chosen;
}

function tile(run) {
  const done = run.total_steps ? run.step / run.total_steps : null;
  const facts = [
    run.total_steps ? say("step {n} of {total}", { n: run.step.toLocaleString("en"),
      total: run.total_steps.toLocaleString("en") }) : say("step {n}", { n: run.step }),
    run.best ? say("best {bits} bits/byte at step {n}", { bits: number(run.best.bits),
      n: run.best.step.toLocaleString("en") }) : "",
    run.parameters ? say("{n} parameters", { n: short(run.parameters) }) : "",
    run.seconds ? duration(run.seconds) : "",
  ].filter(Boolean).join(" · ");
  const bar = done == null ? null : h("progress", { max: 1, value: Math.min(1, done),
    "aria-label": say("progress of {name}", { name: run.name }) });
  const words = [...run.problems.map((what) => say("cannot be read: {what}", { what })),
    ...run.warnings.slice(-3).map((w) => `${say("step {n}", { n: w.step })}: ${visible(w.text)}`)];
  return h("div", { class: "card tile", "data-state": run.state },
    h("h2", {}, h("i", { class: `key c${run.colour}` }), run.name, " ",
      h("span", { class: `state ${run.state}` }, say(run.state))),
    bar, h("p", {}, facts), ...words.map((line) => h("p", { class: "warning" }, line)));
}

function duration(seconds) {
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)}m${String(s % 60).padStart(2, "0")}s`;
  return `${Math.floor(s / 3600)}h${String(Math.floor(s / 60) % 60).padStart(2, "0")}m`;
}
