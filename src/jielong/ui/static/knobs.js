// The knobs of sampling: one set of values, shown in each view that uses it.

import { field, h } from "./dom.js";
import { say } from "./words.js";

const DEFAULTS = { temperature: 0.8, top_p: 0.95, top_k: 0, min_p: 0, repetition_penalty: 1 };
const RANGES = {
  temperature: ["Temperature", 0, 2, 0.05],
  top_p: ["Top-p", 0.01, 1, 0.01],
  top_k: ["Top-k", 0, 100, 1],
  min_p: ["Min-p", 0, 0.5, 0.01],
  repetition_penalty: ["Repetition penalty", 1, 2, 0.05],
};
const HINTS = {
  temperature: "below 1 the likely become likelier; 0 always takes the likeliest",
  top_p: "only the likeliest tokens that together have this share",
  top_k: "only so many of the likeliest tokens; 0 is off",
  min_p: "only tokens with at least this share of the likeliest one's probability",
  repetition_penalty: "above 1, tokens that are in the text already become less likely",
};

export const knobs = { ...DEFAULTS };
export const changed = new EventTarget();

function set(values) {
  Object.assign(knobs, values);
  changed.dispatchEvent(new Event("change"));
}

/** Return a panel of all knobs. */
export function panel() {
  const rows = Object.entries(RANGES).map(([name, [words, min, max, step]]) => {
    const hint = say(HINTS[name]);
    const value = h("output", {}, "");
    const range = h("input", {
      type: "range", min, max, step, "data-knob": name, title: hint,
      oninput: () => set({ [name]: Number(range.value) }),
    });
    const show = () => {
      range.value = knobs[name];
      const off = (name === "top_k" && !knobs.top_k) || (name === "min_p" && !knobs.min_p);
      value.textContent = off || (name === "top_p" && knobs.top_p === 1) ? say("off") : knobs[name];
      range.setAttribute("aria-valuetext", value.textContent);
    };
    changed.addEventListener("change", show);
    show();
    const row = field(say(words), range, "knob");
    row.append(value);
    return row;
  });
  const reset = h("button", { type: "button", onclick: () => set(DEFAULTS) }, say("Reset"));
  return h("fieldset", { class: "knobs" }, h("legend", {}, say("Knobs")), ...rows, reset);
}
