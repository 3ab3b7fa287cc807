// Looks inside: the views of `jielong inspect`, whose pages the server makes.

import { chainText } from "./chain.js";
import { field, h, tell } from "./dom.js";
import { PlayerChoice } from "./players.js";
import { ask, telling } from "./server.js";
import { language, say } from "./words.js";

const VIEWS = {
  predict: ["What it predicts", ["text"]],
  layers: ["Layers (logit lens)", ["text"]],
  attention: ["Attention heads", ["text", "layer"]],
  experts: ["Experts", ["text"]],
  embeddings: ["Nearest tokens", ["text"]],
  tokenizer: ["Tokenizer", ["text"]],
  model: ["The model's parts", []],
  data: ["A batch of the data", ["step", "clean"]],
  schedule: ["Schedule", []],
};
const kept = { view: "predict", text: null, player: {} };

/** Make the view. */
export function insideView(example) {
  return new Inside(example).element;
}

class Inside {
  constructor(example) {
    this.player = new PlayerChoice(() => this.chosen(), kept.player);
    this.view = h("select", { "data-is": "view", onchange: () => this.chosen() },
      ...Object.entries(VIEWS).map(([name, [words]]) => h("option",
        { value: name, selected: name === kept.view }, say(words))));
    this.text = h("textarea", { rows: 2, "data-is": "text", spellcheck: "false" });
    this.text.value = kept.text ?? (chainText() || example);
    this.step = h("input", { type: "number", min: 0, value: 0, "data-is": "step" });
    this.layer = h("input", { type: "number", min: 0, value: 0, "data-is": "layer" });
    this.clean = h("input", { type: "checkbox" });
    this.fields = {
      text: field(say("Text"), this.text, "field wide"),
      step: field(say("Step, from 0"), this.step),
      layer: field(say("Layer, 0 for all"), this.layer),
      clean: field(say("without noise"), this.clean, "check"),
    };
    this.look = h("button", { type: "button", class: "main", "data-is": "look",
      onclick: () => this.make() }, say("Look"));
    this.frame = h("iframe", { sandbox: "allow-same-origin", title: say("Look inside"),
      hidden: true, onload: () => this.fit() });
    this.element = h("section", { class: "inside", "aria-label": say("Look inside") },
      h("div", { class: "card" }, this.player.element,
        h("div", { class: "controls" }, field(say("View"), this.view), this.fields.layer,
          this.fields.step, this.fields.clean), this.fields.text, this.look),
      this.frame);
    this.remake = () => this.make();
    window.addEventListener("scheme", this.remake);
    this.element.addEventListener("leave", () => {
      window.removeEventListener("scheme", this.remake);
    });
    this.chosen();
  }

  async chosen() {
    kept.view = this.view.value;
    kept.player = this.player.value;
    for (const [name, element] of Object.entries(this.fields)) {
      element.hidden = !VIEWS[kept.view][1].includes(name);
    }
    const model = await this.player.load();
    const experts = this.view.querySelector("[value=experts]");
    experts.disabled = !model?.experts;
    experts.textContent = model?.experts ? say("Experts") : say("Experts (this model has none)");
    if (this.view.selectedOptions[0].disabled) this.view.value = "predict";
    this.make();
  }

  async make() {
    const mine = (this.making = {});
    kept.text = this.text.value;
    tell(say("looking …"));
    const answer = await telling(() => ask("api/inside", {
      ...this.player.value,
      view: this.view.value,
      text: this.text.value,
      step: Number(this.step.value) || 0,
      layer: Number(this.layer.value) || 0,
      clean: this.clean.checked,
      language: language(),
      scheme: document.documentElement.dataset.theme,
    }));
    if (this.making !== mine) return;
    this.frame.hidden = !answer;
    if (!answer) return;
    tell("");
    this.frame.src = answer.page;
    this.frame.title = say(VIEWS[this.view.value][0]);
  }

  /** The frame is as high as its page, so that only one thing scrolls. */
  fit() {
    const page = this.frame.contentDocument?.body;
    if (page) this.frame.style.height = `${page.scrollHeight + 24}px`;
  }
}
