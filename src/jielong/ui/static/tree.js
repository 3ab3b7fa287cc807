// What was tried: each token is a node, and what was tried in its place stays beside it.

import { h, visible } from "./dom.js";
import { say } from "./words.js";
import { Decoder } from "./tokens.js";

const LONGEST = 60; // characters of a stretch that are shown

/** A token of a text; the root has none. `given` tokens were typed. */
export class Node {
  constructor(token, parent) {
    Object.assign(this, { token, parent, children: [] });
  }

  /** Return the child with this token; make it where there is none. */
  add(token) {
    const there = this.children.find((child) => child.token.id === token.id);
    if (there) {
      if (there.token.bits == null) there.token = { ...token, given: there.token.given };
      return there;
    }
    const child = new Node(token, this);
    this.children.push(child);
    return child;
  }

  /** The nodes from the first token to this one. */
  path() {
    const nodes = [];
    for (let node = this; node.parent; node = node.parent) nodes.unshift(node);
    return nodes;
  }
}

/** Draw the tree: a stretch without branches is one button. */
export function drawn(root, current, go) {
  const within = new Set(current.path());
  const list = (node) => h("ul", {}, ...node.children.map((child) => branch(child)));
  const branch = (first) => {
    const nodes = [first];
    let last = first;
    while (last.children.length === 1 && last !== current) nodes.push(last = last.children[0]);
    const end = last;
    const text = stretch(nodes);
    const shown = text.length > LONGEST ? `… ${text.slice(-LONGEST)}` : text;
    const button = h("button", {
      type: "button",
      class: within.has(first) ? "on" : "",
      "aria-current": end === current ? "true" : false,
      title: text.slice(-400),
      onclick: () => go(end),
    }, shown.replaceAll("\n", "⏎"));
    const bits = mean(nodes);
    const about = bits == null ? null : h("small", {}, `${nodes.length} × ${bits.toFixed(1)} `,
      say("bits"));
    return h("li", {}, button, about, end.children.length ? list(end) : null);
  };
  return list(root);
}

function stretch(nodes) {
  const decoder = new Decoder();
  const typed = nodes.filter(({ token }) => token.bytes || !token.given); // bos stands before it
  return typed.map(({ token }) => (token.bytes ? decoder.push(token) : visible(token.text))).join("");
}

function mean(nodes) {
  const all = nodes.map((node) => node.token.bits).filter((bits) => bits != null);
  return all.length ? all.reduce((sum, bits) => sum + bits, 0) / all.length : null;
}
