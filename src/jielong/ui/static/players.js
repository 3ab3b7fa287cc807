// Which model plays: a run and one of its checkpoints.

import { choices, field, h, tell } from "./dom.js";
import { ask, telling } from "./server.js";
import { say } from "./words.js";

/** What was named at the start of `jielong ui`, with its checkpoints; `change` when they change. */
export const runs = Object.assign(new EventTarget(), { list: [] });

/** Ask again which checkpoints are there. */
export async function refresh() {
  const found = await ask("api/runs");
  if (JSON.stringify(found.runs) === JSON.stringify(runs.list)) return;
  runs.list = found.runs;
  runs.dispatchEvent(new Event("change"));
}

/** Whether a run has a model to play with. */
export function playable(run) {
  return !run.is_run || run.steps.length > 0;
}

/** Two selects; `value` is what requests say, `onchange` is called when another is chosen. */
export class PlayerChoice {
  constructor(onchange, chosen = {}) {
    this.onchange = onchange;
    this.run = h("select", { "data-is": "run", onchange: () => this.changed() });
    this.checkpoint = h("select", { "data-is": "checkpoint", onchange: () => this.changed() });
    this.about = h("span", { class: "about" });
    this.element = h("div", { class: "player" },
      field(say("Run"), this.run), field(say("Checkpoint"), this.checkpoint), this.about);
    this.fill();
    if (chosen.run != null) this.run.value = chosen.run;
    this.fill();
    if (chosen.checkpoint != null) this.checkpoint.value = chosen.checkpoint;
    runs.addEventListener("change", () => this.fill());
  }

  get value() {
    return { run: Number(this.run.value), checkpoint: this.checkpoint.value || "best" };
  }

  get subject() {
    return runs.list.find((run) => run.run === this.value.run);
  }

  fill() {
    choices(this.run, runs.list.map((run) => [run.run, run.name]));
    const steps = this.subject?.steps ?? [];
    const words = [["best", say("the best")]];
    if (steps.length) words.push(["last", say("the last")]);
    const named = steps.map((step) => [step, say("step {n}", { n: step.toLocaleString("en") })]);
    choices(this.checkpoint, [...words, ...named.reverse()]);
  }

  changed() {
    this.fill();
    this.onchange();
  }

  /** Load the model, and say what it is; undefined where there is none. */
  async load() {
    this.about.textContent = say("loading …");
    if (this.subject && !playable(this.subject)) {
      this.about.textContent = say("no checkpoint yet");
      return undefined;
    }
    const model = await telling(() => ask("api/model", this.value));
    this.about.textContent = model ? [
      model.label && say("step {n}", { n: model.label.replace("step ", "") }),
      say("{n} parameters", { n: short(model.parameters) }),
      say("context {n}", { n: model.context }),
    ].filter(Boolean).join(" · ") : "";
    if (model) tell("");
    return model;
  }
}

/** Write a number in few characters. */
export function short(value) {
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (value >= size) return `${Number((value / size).toPrecision(3))} ${unit}`;
  }
  return `${Math.round(value)}`;
}
