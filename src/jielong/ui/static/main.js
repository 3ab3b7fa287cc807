// The page: its views, its language, light and dark.

import { chainView } from "./chain.js";
import { compareView } from "./compare.js";
import { field, h, tell } from "./dom.js";
import { insideView } from "./inside.js";
import { refresh, runs } from "./players.js";
import { ask } from "./server.js";
import { watchView } from "./watch.js";
import { language, say, setLanguage } from "./words.js";

const VIEWS = {
  chain: ["Word chain", chainView],
  compare: ["Side by side", compareView],
  watch: ["Watch", watchView],
  inside: ["Look inside", insideView],
};
const REFRESH_MS = 5000;
let shown = null;
let example = "Once upon a time";

function theme() {
  return localStorage.getItem("theme") ?? "auto";
}

function setTheme(name) {
  localStorage.setItem("theme", name);
  document.documentElement.dataset.theme = name;
  window.dispatchEvent(new Event("scheme"));
}

function header() {
  const tabs = Object.entries(VIEWS).map(([name, [words]]) => h("button", {
    type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "view",
    "data-view": name, onclick: () => { location.hash = name; },
  }, say(words)));
  const names = Object.keys(VIEWS);
  const list = h("div", { role: "tablist", "aria-label": say("Views"), class: "tabs",
    onkeydown: (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = (names.indexOf(shown) + step + names.length) % names.length;
      location.hash = names[next];
      document.getElementById(`tab-${names[next]}`).focus();
    } }, ...tabs);
  const scheme = h("select", { "data-is": "scheme", onchange: () => setTheme(scheme.value) },
    ...["auto", "light", "dark"].map((name) =>
      h("option", { value: name, selected: name === theme() }, say(name))));
  const other = h("button", { type: "button", "data-is": "language",
    lang: language() === "zh" ? "en" : "zh",
    onclick: () => { setLanguage(language() === "zh" ? "en" : "zh"); page(); },
  }, language() === "zh" ? "English" : "中文");
  return [h("h1", {}, "接龙 ", h("small", {}, "jielong")), list,
    h("div", { class: "switches" }, field(say("Colours"), scheme), other)];
}

function page() {
  document.documentElement.lang = language() === "zh" ? "zh-CN" : "en";
  document.getElementById("head").replaceChildren(...header());
  shown = null;
  show();
}

function show() {
  const name = location.hash.slice(1) in VIEWS ? location.hash.slice(1) : first();
  if (name === shown) return;
  shown = name;
  tell("");
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const chosen = tab.dataset.view === name;
    tab.setAttribute("aria-selected", chosen);
    tab.setAttribute("tabindex", chosen ? 0 : -1);
  }
  document.querySelector("#view > section")?.dispatchEvent(new Event("leave"));
  const view = VIEWS[name][1](example);
  document.getElementById("views").replaceChildren(h("div", {
    id: "view", role: "tabpanel", "aria-labelledby": `tab-${name}`,
  }, view));
}

/** A run that has no checkpoint yet can only be watched. */
function first() {
  return runs.list.some((run) => !run.is_run || run.steps.length) ? "chain" : "watch";
}

/** A text of the kind that the model knows: the first prompt of its own samples. */
async function findExample() {
  const run = runs.list.find((one) => one.is_run);
  const found = run && await ask(`api/watch?run=${run.run}`).catch(() => null);
  example = found?.samples[0]?.prompt ?? example;
}

document.documentElement.dataset.theme = theme();
window.addEventListener("hashchange", show);
const failed = await refresh().then(findExample).catch((error) => error);
page();
if (failed) tell(failed.message, true);
setInterval(() => {
  if (document.visibilityState === "visible") refresh().catch(() => {});
}, REFRESH_MS);
