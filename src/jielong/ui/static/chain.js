// The word chain: a text, what may come next, and all that was tried.

import { Bars, KEYS } from "./bars.js";
import { field, h, tell } from "./dom.js";
import { changed, knobs, panel } from "./knobs.js";
import { PlayerChoice } from "./players.js";
import { ask, stream, telling } from "./server.js";
import { legend, TokenText } from "./tokens.js";
import { drawn, Node } from "./tree.js";
import { say } from "./words.js";

const PACES = { slow: 350, steady: 80, fast: 0 }; // milliseconds between tokens
const state = { text: "", root: new Node(null, null), current: null, player: {} };
state.current = state.root;

/** The text so far, for other views. */
export function chainText() {
  return state.text;
}

/** Make the view. */
export function chainView(example) {
  return new Chain(example).element;
}

class Chain {
  constructor(example) {
    this.player = new PlayerChoice(() => this.begin(), state.player);
    this.input = h("textarea", { rows: 2, "data-is": "text", spellcheck: "false",
      onkeydown: (e) => { if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) this.begin(); } });
    this.input.value = state.text || example;
    this.text = new TokenText(say("The text, token by token"), (place) => this.look(place));
    this.bars = new Bars((bar) => this.take(bar));
    this.place = h("h2", {}, say("What may come next"));
    this.tree = h("div", { class: "tree" });
    this.seed = h("input", { type: "number", min: 0, max: 2 ** 31, "data-is": "seed",
      placeholder: say("random") });
    this.count = h("input", { type: "number", min: 1, max: 1000, value: 100, "data-is": "count" });
    this.pace = h("select", { "data-is": "pace" }, ...Object.keys(PACES).map((name) =>
      h("option", { value: name, selected: name === "steady" }, say(name))));
    this.buttons();
    this.element = this.layout();
    this.looking = null; // a node of the path whose alternatives are shown
    changed.addEventListener("change", () => this.element.isConnected && this.refreshBars());
    this.element.addEventListener("leave", () => this.stop());
    if (state.current !== state.root) {
      this.player.load();
      this.draw();
    } else {
      this.begin();
    }
  }

  buttons() {
    const button = (name, words, act, keys) => h("button", {
      type: "button", "data-is": name, onclick: act, "aria-keyshortcuts": keys,
      title: say("key {key}", { key: keys }),
    }, say(words));
    this.go = button("go", "▶ Go on", () => this.goOn(), "G");
    this.go.classList.add("main");
    this.stopButton = button("stop", "■ Stop", () => this.stop(), "Escape");
    this.one = button("one", "+1 Draw one", () => this.goOn(1), "N");
    this.back = button("back", "← Step back", () => this.stepBack(), "Backspace");
  }

  layout() {
    const begin = h("button", { type: "button", "data-is": "begin", onclick: () => this.begin() },
      say("Begin"));
    const setup = h("div", { class: "card setup" }, this.player.element,
      field(say("Text to begin with"), this.input, "field wide"), begin);
    const controls = h("div", { class: "controls" }, this.go, this.stopButton, this.one, this.back,
      field(say("Tokens"), this.count), field(say("Pace"), this.pace), field(say("Seed"), this.seed));
    const keys = say("Keys: 1 to 0 take a candidate, G goes on, N draws one, Backspace steps back, "
      + "Escape stops. In the text, arrows move and Enter shows what else was likely.");
    const text = h("div", { class: "card" }, h("h2", {}, say("The text")), this.text.box, legend(),
      controls, h("p", { class: "dim small keys" }, keys));
    const next = h("div", { class: "card next" }, this.place, this.bars.element, panel());
    const tried = h("div", { class: "card" }, h("h2", {}, say("What was tried")), this.tree);
    return h("section", { class: "chain", tabindex: -1, "aria-label": say("Word chain"),
      onkeydown: (e) => this.key(e) },
    setup, h("div", { class: "columns" }, text, next, tried));
  }

  key(event) {
    const typing = event.target.closest("input, textarea, select");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const acts = { g: () => this.goOn(), n: () => this.goOn(1), Backspace: () => this.stepBack(),
      Escape: () => this.stop() };
    if (KEYS.includes(event.key)) this.pickKey(KEYS.indexOf(event.key));
    else if (acts[event.key]) acts[event.key]();
    else return;
    event.preventDefault();
  }

  /** Take a candidate by its key; where the bars are on their way, as soon as they are there. */
  pickKey(place) {
    if (this.asking) this.pending = place;
    else this.bars.pick(place);
  }

  async begin() {
    this.stop();
    const mine = (this.beginning = {});
    state.text = this.input.value;
    state.player = this.player.value;
    state.root = state.current = new Node(null, null);
    this.looking = null;
    this.draw();
    if (!(await this.player.load())) return;
    const read = await telling(() => ask("api/read", { ...state.player, text: state.text }));
    if (!read || this.beginning !== mine) return;
    for (const token of read.tokens) {
      token.given = true;
      state.current = state.current.add(token);
    }
    this.draw();
  }

  get path() {
    return state.current.path();
  }

  get ended() {
    return Boolean(state.current.token?.end);
  }

  draw() {
    const nodes = this.path;
    this.text.show(nodes.map((node) => node.token));
    this.text.mark(this.looking ? nodes.indexOf(this.looking) : -1);
    this.place.textContent = this.looking ? say("What else was likely here")
      : say("What may come next");
    const running = Boolean(this.running);
    this.go.disabled = this.one.disabled = running || this.ended || !nodes.length;
    this.stopButton.disabled = !running;
    this.back.disabled = running || nodes.length < 2;
    this.drawTree();
    this.refreshBars();
  }

  drawTree() {
    if (this.running && !this.lastOfRun) return;
    const hint = say("Take another candidate, or step back and go on: each try stays here.");
    this.tree.replaceChildren(drawn(state.root, state.current, (node) => this.visit(node)),
      h("p", { class: "dim small" }, hint));
  }

  /** Ask for the bars of the place that is looked at; at most one question is under way. */
  async refreshBars() {
    if (this.asking) {
      this.askAgain = true;
      return;
    }
    const place = this.looking?.parent ?? state.current;
    const taken = this.looking?.token.id ?? null;
    const ids = place.path().map((node) => node.token.id);
    if (!ids.length || (this.ended && !this.looking)) {
      this.bars.show(null);
      return;
    }
    this.asking = true;
    const body = { ...state.player, ids, knobs, also: taken };
    const found = await telling(() => ask("api/bars", body));
    this.asking = false;
    if (this.askAgain) {
      this.askAgain = false;
      this.refreshBars();
    }
    if (!found) return;
    this.bars.show(found, new Set(place.children.map((node) => node.token.id)), taken);
    this.found = { place, bars: found.bars };
    if (this.asking || this.pending == null) return;
    const waited = this.pending;
    this.pending = null;
    this.bars.pick(waited);
  }

  /** Take a candidate: at the end, or instead of the token that is looked at. */
  take(bar) {
    this.stop();
    const { place, bars } = this.found ?? {};
    if (place !== (this.looking?.parent ?? state.current)) return; // the bars of an earlier place
    const others = bars.map(({ id, text, p }) => ({ id, text, p }));
    const token = { id: bar.id, text: bar.text, bytes: bar.end ? "" : bar.bytes, end: bar.end,
      bits: -Math.log2(bar.p), others };
    this.visit(place.add(token));
  }

  visit(node) {
    this.stop();
    this.pending = null;
    state.current = node;
    this.looking = null;
    this.draw();
  }

  look(place) {
    const node = this.path[place];
    this.looking = this.looking === node || !node?.parent?.token ? null : node;
    this.draw();
  }

  stepBack() {
    this.stop();
    if (state.current.parent?.token) this.visit(state.current.parent);
  }

  stop() {
    this.running?.abort();
    this.running = null;
  }

  /** Let the model write: so many tokens, at the pace that is chosen. */
  async goOn(most) {
    if (this.running || this.ended || !state.current.token) return;
    const running = (this.running = new AbortController());
    this.looking = null;
    this.draw();
    const begun = this.path;
    const count = most ?? Math.min(1000, Math.max(1, Number(this.count.value) || 100));
    const sampling = { ...knobs, ...this.seedFor(begun) };
    const body = { ...state.player, ids: begun.map((node) => node.token.id), count,
      knobs: sampling };
    let written = 0;
    let finish = null;
    await telling(async () => {
      for await (const event of stream("api/go", body, running.signal)) {
        if (event.finish) finish = event.finish;
        else {
          if (written && !most) await rest(PACES[this.pace.value]);
          if (running.signal.aborted) break;
          written += 1;
          state.current = state.current.add(event);
          this.draw();
        }
      }
    });
    if (this.running === running) this.running = null;
    this.lastOfRun = true;
    if (finish === "stop") tell(say("The model has ended the text here."));
    else if (!most) tell(say("{n} tokens written", { n: written }));
    this.draw();
    this.lastOfRun = false;
  }

  /** From the typed text on, a seed gives the text of `jielong generate --seed`. */
  seedFor(nodes) {
    if (this.seed.value === "") return {};
    return { seed: Number(this.seed.value) + nodes.filter((node) => !node.token.given).length };
  }
}

function rest(milliseconds) {
  return new Promise((done) => setTimeout(done, milliseconds));
}
