// Two at once: the same text continued by two checkpoints or runs, with the same seed.

import { chainText } from "./chain.js";
import { field, h, tell } from "./dom.js";
import { knobs, panel } from "./knobs.js";
import { playable, PlayerChoice, runs } from "./players.js";
import { ask, stream, telling } from "./server.js";
import { legend, TokenText } from "./tokens.js";
import { say } from "./words.js";

const kept = { text: null, seed: 1, sides: [] };

/** Make the view. */
export function compareView(example) {
  return new Compare(example).element;
}

function firstSides() {
  const able = runs.list.filter(playable);
  const [one, two] = able;
  if (two) return [{ run: one.run }, { run: two.run }];
  return [{ run: one?.run, checkpoint: one?.steps[0] }, { run: one?.run, checkpoint: "best" }];
}

class Compare {
  constructor(example) {
    const chosen = kept.sides.length ? kept.sides : firstSides();
    this.sides = chosen.map((value) => new Side(value));
    this.input = h("textarea", { rows: 2, "data-is": "text", spellcheck: "false" });
    this.input.value = kept.text ?? (chainText() || example);
    this.seed = h("input", { type: "number", min: 0, max: 2 ** 31, value: kept.seed,
      "data-is": "seed" });
    this.count = h("input", { type: "number", min: 1, max: 1000, value: 100, "data-is": "count" });
    this.go = h("button", { type: "button", class: "main", "data-is": "go",
      onclick: () => this.goOn() }, say("▶ Go on"));
    this.stop = h("button", { type: "button", "data-is": "stop", disabled: true,
      onclick: () => this.running?.abort() }, say("■ Stop"));
    const setup = h("div", { class: "card" },
      field(say("Text to begin with"), this.input, "field wide"),
      h("div", { class: "controls" }, this.go, this.stop, field(say("Seed"), this.seed),
        field(say("Tokens"), this.count)));
    this.element = h("section", { class: "compare", "aria-label": say("Side by side") }, setup,
      h("div", { class: "two" }, ...this.sides.map((side) => side.element)),
      h("div", { class: "card" }, legend(), panel()));
    this.element.addEventListener("leave", () => this.running?.abort());
  }

  async goOn() {
    const running = (this.running = new AbortController());
    this.go.disabled = true;
    this.stop.disabled = false;
    Object.assign(kept, { text: this.input.value, seed: Number(this.seed.value) || 0,
      sides: this.sides.map((side) => side.player.value) });
    this.seed.value = kept.seed;
    const count = Math.min(1000, Math.max(1, Number(this.count.value) || 100));
    const sampling = { ...knobs, seed: kept.seed };
    await Promise.all(this.sides.map((side) =>
      telling(() => side.goOn(kept.text, sampling, count, running.signal))));
    this.go.disabled = false;
    this.stop.disabled = true;
    if (!running.signal.aborted) tell(say("Both have ended."));
  }
}

class Side {
  constructor(chosen) {
    this.player = new PlayerChoice(() => this.player.load(), chosen);
    this.text = new TokenText(say("The text, token by token"));
    this.about = h("p", { class: "dim", "data-is": "about" });
    this.element = h("div", { class: "card side" }, this.player.element, this.text.box, this.about);
  }

  async goOn(text, sampling, count, signal) {
    this.text.show([]);
    this.about.textContent = "";
    const player = this.player.value;
    await this.player.load();
    const { tokens } = await ask("api/read", { ...player, text }, signal);
    tokens.forEach((token) => { token.given = true; });
    this.text.show(tokens);
    const ids = tokens.map((token) => token.id);
    const given = tokens.length;
    try {
      const body = { ...player, ids, knobs: sampling, count };
      for await (const event of stream("api/go", body, signal)) {
        if (!event.finish) tokens.push(event);
        this.text.show(tokens);
      }
    } finally {
      this.about.textContent = [
        about(say("typed"), tokens.slice(0, given)), about(say("written"), tokens.slice(given)),
      ].join(" · ");
    }
  }
}

function about(words, tokens) {
  const bits = tokens.map((token) => token.bits).filter((value) => value != null);
  const mean = bits.length ? bits.reduce((sum, value) => sum + value, 0) / bits.length : 0;
  return say("{what}: {n} tokens, {bits} bits each", {
    what: words, n: bits.length, bits: mean.toFixed(2),
  });
}
