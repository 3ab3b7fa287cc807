// Builds elements. Text is always text here: nothing in these files makes markup of a string.

/** Make an element: attributes, `on…` handlers, and children (elements or texts). */
export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** A labelled field: the label's words, then the control. */
export function field(words, control, kind = "field") {
  return h("label", { class: kind }, h("span", {}, words), control);
}

/** Fill a select; keep what is chosen where it still is there. */
export function choices(select, options) {
  const chosen = select.value;
  select.replaceChildren(
    ...options.map(([value, words]) => h("option", { value }, words)),
  );
  if (options.some(([value]) => String(value) === chosen)) select.value = chosen;
}

/** Show a character that would act instead of being seen as its code. */
export function visible(text) {
  return text.replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu, (c) => {
    if ("\n\t\u200c\u200d".includes(c)) return c;
    return `<U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}>`;
  });
}

/** Write a share as a percentage, so that small ones stay visible. */
export function percent(share) {
  if (share >= 0.0995) return `${(100 * share).toFixed(0)}\u00a0%`;
  if (share >= 0.001) return `${(100 * share).toFixed(1)}\u00a0%`;
  return share > 0 ? "<\u00a00.1\u00a0%" : "0\u00a0%";
}

let clearing = 0;

/** Tell something in a line at the bottom, which screen readers read out. */
export function tell(words, wrong = false) {
  const line = document.getElementById("said");
  line.textContent = words;
  line.classList.toggle("wrong", wrong);
  clearTimeout(clearing);
  if (words && !wrong) clearing = setTimeout(() => tell(""), 6000);
}
