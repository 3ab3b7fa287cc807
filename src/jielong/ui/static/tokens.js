// A text as tokens, each tinted by its surprise, with what else was likely on hover, focus or tap.

import { h, percent, visible } from "./dom.js";
import { say } from "./words.js";

const LEVELS = [0.5, 1.5, 3, 5, 7, 10]; // bits from which the next tint begins
const SHOWN = 5; // of what else was likely

/** How deeply a surprise is tinted: 0 (not at all) to 6. */
export function level(bits) {
  return bits == null ? 0 : LEVELS.filter((least) => bits >= least).length;
}

/** Decode the bytes of tokens: a character made of several stands at the last of them. */
export class Decoder {
  constructor() {
    this.decoder = new TextDecoder("utf-8");
  }

  push(token) {
    const bytes = token.bytes.match(/../g) ?? [];
    const text = this.decoder.decode(Uint8Array.from(bytes, (b) => parseInt(b, 16)), {
      stream: true,
    });
    return visible(text || (bytes.length ? "·" : ""));
  }
}

/** The tints and what they mean. */
export function legend() {
  const marks = ["0", "½", "1½", "3", "5", "7", "10+"].map((bits, n) =>
    h("span", { class: `s${n}` }, bits));
  return h("p", { class: "legend" }, say("Surprise in bits:"), " ", ...marks);
}

/** Shows tokens in an element; `onpick(place)` is called when one is clicked. */
export class TokenText {
  constructor(words, onpick) {
    this.onpick = onpick;
    this.tokens = [];
    this.marked = -1;
    this.decoder = new Decoder();
    this.element = h("div", {
      class: "tokens", role: "group", "aria-label": words, onkeydown: (e) => this.key(e),
    });
    this.tip = h("div", { class: "tip", role: "tooltip", hidden: true, id: `tip-${++made}` });
    this.box = h("div", { class: "token-box", onmouseleave: () => this.hide() },
      this.element, this.tip);
  }

  /** Show these tokens; where they only go on, what is there stays. */
  show(tokens) {
    const goesOn = this.tokens.length <= tokens.length &&
      this.tokens.every((token, place) => token === tokens[place]);
    if (!goesOn) {
      this.element.replaceChildren();
      this.decoder = new Decoder();
      this.tokens = [];
      this.hide();
    }
    const atEnd = this.element.scrollHeight - this.element.scrollTop -
      this.element.clientHeight < 40;
    for (const token of tokens.slice(this.tokens.length)) this.add(token);
    this.tokens = [...tokens];
    if (atEnd) this.element.scrollTop = this.element.scrollHeight;
  }

  add(token) {
    const place = this.element.childElementCount;
    const text = this.decoder.push(token);
    const span = h("span", {
      class: `token s${level(token.bits)}${token.given ? " given" : ""}`,
      role: "button",
      tabindex: place === 0 ? 0 : -1,
      onclick: () => this.onpick?.(place),
      onmouseenter: () => this.explain(place),
      onfocus: () => this.explain(place),
      onblur: () => this.hide(),
    }, text || token.text);
    if (!token.bytes) span.classList.add("special");
    if (text.includes("\n")) span.textContent = text.replaceAll("\n", "⏎\n");
    const bits = token.bits == null ? "" : `, ${token.bits.toFixed(1)} ${say("bits")}`;
    span.setAttribute("aria-label", `${visible(token.text)}${bits}`);
    this.element.append(span);
  }

  /** Mark the token whose alternatives are shown elsewhere. */
  mark(place) {
    this.element.children[this.marked]?.removeAttribute("aria-current");
    this.marked = place;
    this.element.children[place]?.setAttribute("aria-current", "true");
  }

  key(event) {
    const all = [...this.element.children];
    const here = all.indexOf(document.activeElement);
    const moves = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: all.length - 1 };
    if (event.key in moves && all[moves[event.key]]) {
      all.forEach((span) => span.setAttribute("tabindex", -1));
      all[moves[event.key]].setAttribute("tabindex", 0);
      all[moves[event.key]].focus();
    } else if ((event.key === "Enter" || event.key === " ") && here >= 0) {
      this.onpick?.(here);
    } else if (event.key === "Escape" && !this.tip.hidden) {
      this.hide();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  explain(place) {
    const token = this.tokens[place];
    const span = this.element.children[place];
    if (!token || token.bits == null) return this.hide();
    const rows = token.others.slice(0, SHOWN).map((other) =>
      h("tr", { class: other.id === token.id ? "own" : "" },
        h("td", {}, visible(other.text)), h("td", {}, percent(other.p))));
    const odds = `${percent(2 ** -token.bits)} · ${token.bits.toFixed(1)} ${say("bits")}`;
    this.tip.replaceChildren(
      h("b", {}, visible(token.text)), ` ${odds}`,
      h("table", { "aria-label": say("What was likely here") }, ...rows),
    );
    this.tip.hidden = false;
    span.setAttribute("aria-describedby", this.tip.id);
    const box = this.box.getBoundingClientRect();
    const at = span.getClientRects()[0];
    const left = Math.min(at.left - box.left, box.width - this.tip.offsetWidth - 4);
    this.tip.style.left = `${Math.max(0, left)}px`;
    this.tip.style.top = `${at.bottom - box.top + 4}px`;
    return undefined;
  }

  hide() {
    this.tip.hidden = true;
  }
}

let made = 0;
