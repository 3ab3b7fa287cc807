// What may come next, as bars: long as the knobs leave it, with a line for the model's own share.

import { h, percent, visible } from "./dom.js";
import { say } from "./words.js";

export const KEYS = "1234567890";

/** A list of candidates; `onpick(candidate)` is called when one is chosen. */
export class Bars {
  constructor(onpick) {
    this.onpick = onpick;
    this.bars = [];
    this.list = h("ol", { class: "bars", "aria-label": say("Candidates for the next token") });
    this.about = h("p", { class: "dim" });
    this.element = h("div", {}, this.list, this.about);
  }

  /**
   * Show what the server says of a place.
   * @param found its answer; null empties the list.
   * @param tried ids that were tried there.
   * @param taken the id that stands there, if one does.
   */
  show(found, tried = new Set(), taken = null) {
    this.bars = found?.bars ?? [];
    const most = Math.max(0.01, ...this.bars.map((bar) => Math.max(bar.p, bar.q)));
    while (this.list.children.length > this.bars.length) this.list.lastChild.remove();
    this.bars.forEach((bar, place) => {
      if (!this.list.children[place]) this.list.append(this.row(place));
      this.fill(this.list.children[place].firstChild, bar, place, most, tried, taken);
    });
    this.about.textContent = found ? say("drawn from {n} tokens; all others together {share}", {
      n: found.drawn_from.toLocaleString("en"), share: percent(found.rest.q),
    }) : "";
  }

  row(place) {
    return h("li", {}, h("button", { type: "button", onclick: () => this.pick(place) },
      h("kbd", { "aria-hidden": "true" }, KEYS[place] ?? ""),
      h("span", { class: "word" }),
      h("span", { class: "track", "aria-hidden": "true" },
        h("span", { class: "fill" }), h("span", { class: "own" })),
      h("span", { class: "share" })));
  }

  fill(button, bar, place, most, tried, taken) {
    const [, word, track, share] = button.children;
    word.textContent = bar.end ? say("end of the text") : visible(bar.text);
    word.classList.toggle("end", bar.end);
    track.children[0].style.width = `${(100 * bar.q) / most}%`;
    track.children[1].style.left = `${(100 * bar.p) / most}%`;
    share.textContent = percent(bar.q);
    button.classList.toggle("never", bar.q === 0);
    button.classList.toggle("tried", tried.has(bar.id));
    button.classList.toggle("taken", bar.id === taken);
    const marks = [
      `${word.textContent}: ${percent(bar.q)}`,
      say("the model's own: {share}", { share: percent(bar.p) }),
      KEYS[place] ? say("key {key}", { key: KEYS[place] }) : "",
      bar.id === taken ? say("stands here") : tried.has(bar.id) ? say("tried before") : "",
    ];
    button.setAttribute("aria-label", marks.filter(Boolean).join(", "));
    button.title = marks.slice(1).filter(Boolean).join(" · ");
  }

  /** Choose the candidate at a place of the list. */
  pick(place) {
    if (this.bars[place]) this.onpick(this.bars[place]);
  }
}
