"""The page of `jielong ui` in a real browser: Debian's Chromium, led by Playwright.

With JIELONG_PICTURES=FOLDER it writes pictures of each view there, of the run that JIELONG_RUN
names.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from live_page import GrowingRun, serving

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: make test gets it")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
if BROWSER is None:
    pytest.skip("needs Chromium: apt-get install chromium", allow_module_level=True)
expect = sync_api.expect
PICTURES, RUN = os.environ.get("JIELONG_PICTURES"), os.environ.get("JIELONG_RUN")
NARROW = {"width": 360, "height": 740}
WIDE = {"width": 1100, "height": 800}
NewPage = Callable[..., "sync_api.Page"]


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> GrowingRun:
    return GrowingRun(tmp_path_factory.mktemp("training") / "growing")


@pytest.fixture(scope="module")
def url(folders: list[Path], growing: GrowingRun) -> Iterator[str]:
    shown = [Path(RUN)] if PICTURES and RUN else folders
    with serving([*shown, growing.folder]) as (address, players):
        players.get(0)
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser: sync_api.Browser, url: str) -> Iterator[NewPage]:
    """Opens the page; at the end nothing was in the console, and nothing asked for elsewhere."""
    asked: list[str] = []
    said: list[str] = []
    contexts = []

    def open_page(
        view: str = "chain", language: str = "en-GB", scheme: str = "light", **options: object
    ) -> sync_api.Page:
        context = browser.new_context(
            locale=language, color_scheme=scheme, **({"viewport": WIDE} | options)
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"{url}/#{view}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert asked and all(address.startswith(f"{url}/") for address in asked)


def begin(page: sync_api.Page, text: str) -> None:
    page.locator("[data-is=text]").fill(text)
    page.locator("[data-is=begin]").click()
    expect(page.locator(".tokens")).to_contain_text(text)
    expect(page.locator(".bars button").first).to_be_visible()


def take(page: sync_api.Page, name: str) -> None:
    if PICTURES:
        page.wait_for_timeout(300)
        page.evaluate("document.getElementById('said').hidden = true")
        page.screenshot(path=Path(PICTURES) / f"{name}.png")


def shares(page: sync_api.Page) -> list[str]:
    return page.locator(".bars .share").all_text_contents()


def test_candidates_are_taken_by_click_and_by_key_and_can_be_stepped_back(
    new_page: NewPage,
) -> None:
    page = new_page()
    begin(page, "Tale 3")
    tokens = page.locator(".token")
    typed = tokens.count()
    bars = page.locator(".bars button")
    first = bars.nth(2).locator(".word").text_content()
    bars.nth(2).click()
    expect(tokens).to_have_count(typed + 1)
    expect(tokens.last).to_have_attribute("aria-label", re.compile(re.escape(first or "")))
    page.keyboard.press("1")
    expect(tokens).to_have_count(typed + 2)
    page.locator("[data-is=back]").click()
    page.keyboard.press("Backspace")
    expect(tokens).to_have_count(typed)
    expect(page.locator(".bars .tried")).to_have_count(1)


def test_it_streams_stops_and_branches(new_page: NewPage) -> None:
    page = new_page()
    begin(page, "Tale 3")
    tokens = page.locator(".token")
    typed = tokens.count()
    page.locator("[data-is=pace]").select_option("slow")
    page.locator("[data-is=seed]").fill("1")
    page.locator("[data-is=go]").click()
    expect(tokens).to_have_count(typed + 3)  # one by one, as they are written
    page.locator("[data-is=stop]").click()
    expect(page.locator("[data-is=go]")).to_be_enabled()
    written = tokens.count()
    page.wait_for_timeout(500)
    assert tokens.count() == written  # none comes after the stop
    tokens.nth(typed + 1).click()  # what else was likely there
    expect(page.locator("h2", has_text="What else was likely here")).to_be_visible()
    expect(page.locator(".bars .taken")).to_have_count(1)
    page.locator(".bars button:not(.taken)").first.click()
    expect(tokens).to_have_count(typed + 2)
    branches = page.locator(".tree li li")
    expect(branches).to_have_count(2)
    branches.first.locator("button").click()
    expect(tokens).to_have_count(written)  # the first try is still there


def test_what_else_was_likely_is_told_on_hover_and_by_keyboard(new_page: NewPage) -> None:
    page = new_page()
    begin(page, "Tale 3")
    tip = page.locator("[role=tooltip]")
    page.locator(".token").nth(2).hover()
    expect(tip).to_contain_text("bits")
    assert tip.locator("tr").count() == 5
    page.locator(".token").first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".token").nth(1)).to_be_focused()
    expect(tip).to_be_visible()
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    page.keyboard.press("Enter")
    expect(page.locator(".token").nth(1)).to_have_attribute("aria-current", "true")


def test_knobs_move_the_bars_at_once(new_page: NewPage) -> None:
    page = new_page()
    begin(page, "Tale 3")
    before = shares(page)
    temperature = page.locator("[data-knob=temperature]")
    temperature.fill("0")
    expect(page.locator(".bars .share").first).to_have_text(re.compile(r"^100\s%$"))
    temperature.fill("2")
    expect(page.locator(".bars .share").first).not_to_have_text(re.compile(r"^100\s%$"))
    page.locator("[data-knob=top_k]").fill("3")
    expect(page.locator(".bars button:not(.never)")).to_have_count(3)
    page.get_by_role("button", name="Reset").click()
    expect(page.locator(".bars .share").first).to_have_text(before[0])
    assert shares(page) == before


def test_two_copies_of_a_run_write_the_same_with_the_same_seed(new_page: NewPage) -> None:
    page = new_page("compare")
    page.locator("[data-is=text]").fill("Tale 3")
    page.locator("[data-is=count]").fill("12")
    page.locator("[data-is=seed]").fill("5")
    page.locator("[data-is=go]").click()
    sides = page.locator(".side")
    for place in (0, 1):
        expect(sides.nth(place).locator("[data-is=about]")).to_contain_text("written")
    texts = sides.locator(".tokens").all_text_contents()
    assert len(texts[0]) > len("Tale 3") and (PICTURES or texts[0] == texts[1])


def test_the_curve_of_a_run_that_trains_meanwhile_grows(
    new_page: NewPage, growing: GrowingRun
) -> None:
    page = new_page("watch")
    expect(page.locator(".tile")).to_have_count(2 if PICTURES else 3)
    growing.go_on(3)
    tile = page.locator(".tile", has_text="growing")
    expect(tile).to_contain_text("step 30 of 400")
    loss = page.locator("[data-chart^=Loss]")
    expect(loss.get_by_role("img")).to_have_attribute("aria-label", re.compile(r"growing.*\(30\)"))
    growing.go_on(4)
    expect(tile).to_contain_text("step 70 of 400")
    expect(loss.get_by_role("img")).to_have_attribute("aria-label", re.compile(r"growing.*\(70\)"))
    expect(page.locator(".samples")).to_contain_text("Tale <b>of</b> 70 nights")  # as text
    page.locator("[data-is=axis]").select_option("tokens")
    expect(loss.get_by_role("img")).to_have_attribute("aria-label", re.compile(r"growing.*\(560\)"))
    page.get_by_role("checkbox", name="growing").uncheck()
    expect(tile).to_have_count(0)


def test_the_views_of_inspect_are_shown(new_page: NewPage) -> None:
    page = new_page("inside")
    frame = page.frame_locator("iframe")
    page.locator("[data-is=text]").fill("Tale 3")
    for view, heading in (
        ("layers", "Layers"),
        ("attention", "Attention"),
        ("data", "step"),
        ("predict", "What the model predicts"),
    ):
        page.locator("[data-is=view]").select_option(view)
        expect(frame.locator("h1")).to_contain_text(re.compile(heading, re.IGNORECASE))
    experts = page.locator("[data-is=view] [value=experts]")
    expect(experts).to_have_text("Experts (this model has none)")
    expect(experts).to_be_disabled()


def test_chinese_and_dark_are_kept_and_nothing_is_wider_than_a_phone(new_page: NewPage) -> None:
    page = new_page(language="zh-CN", viewport=NARROW)
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(page.locator("[data-is=go]")).to_have_text("▶ 接下去")
    for view in ("chain", "compare", "watch", "inside"):
        page.locator(f"[data-view={view}]").click()
        expect(page.locator(f"section.{view}")).to_be_visible()
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
        left = page.evaluate(ENGLISH)
        assert left == [], left
    page.locator("[data-is=scheme]").select_option("dark")
    page.locator("[data-is=language]").click()
    expect(page.locator("[data-view=chain]")).to_have_text("Word chain")
    page.reload()
    expect(page.locator("[data-view=chain]")).to_have_text("Word chain")
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == "rgb(20, 23, 29)"


# labels and buttons with a Latin word that is no name or term, in the Chinese page
ENGLISH = r"""
() => [...document.querySelectorAll("label > span, button, h2, h3")]
  .filter((element) => !element.closest(".bars, .tree"))
  .map((element) => element.textContent)
  .filter((text) => /[A-Za-z]{3,}/.test(text.replace(
    /Top-[pk]|Min-p|token|English|logit|lens|nat|first|second|growing|[\w-]*run/g, "")))
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_control_has_a_name_and_text_has_contrast(new_page: NewPage, scheme: str) -> None:
    page = new_page(scheme=scheme)
    begin(page, "Tale 3")
    page.locator("[data-is=count]").fill("30")
    page.locator("[data-is=pace]").select_option("fast")
    page.locator("[data-is=go]").click()
    expect(page.locator("[data-is=go]")).to_be_enabled()
    assert page.evaluate(CONTRAST) == []
    for view in ("compare", "watch", "inside", "chain"):
        page.locator(f"[data-view={view}]").click()
        expect(page.locator(f"section.{view}")).to_be_visible()
        assert page.evaluate(CONTRAST) == []
        unnamed = page.evaluate(
            "[...document.querySelectorAll('input, select, textarea, button, iframe')]"
            ".filter((e) => !e.labels?.length && !e.textContent.trim() && !e.title"
            " && !e.getAttribute('aria-label')).map((e) => e.outerHTML)"
        )
        assert unnamed == []


# texts whose contrast with what is behind them is below 4.5 (WCAG 2.2, 1.4.3), but of disabled
# controls
CONTRAST = r"""
() => {
  const parts = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = parts(colour).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if ((parts(colour)[3] ?? 1) > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const own = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  return [...document.querySelectorAll("body *")]
    .filter((e) => own(e) && e.checkVisibility() && !e.closest(":disabled, option"))
    .map((e) => {
      const style = getComputedStyle(e);
      const colour = e instanceof SVGElement ? style.fill : style.color;
      const [a, b] = [light(colour), light(behind(e))].sort((x, y) => y - x);
      const name = e.className.baseVal ?? e.className;
      return [(a + 0.05) / (b + 0.05), name, e.textContent.slice(0, 20)];
    })
    .filter(([ratio]) => ratio < 4.5);
}
"""


@pytest.mark.skipif(PICTURES is None, reason="make pictures takes them")
def test_pictures(new_page: NewPage) -> None:
    for language, end in (("en-GB", ""), ("zh-CN", ".zh-CN")):
        page = new_page(language=language, viewport={"width": 1000, "height": 960})
        page.locator("[data-is=seed]").fill("2")
        page.locator("[data-is=count]").fill("30")
        page.locator("[data-is=pace]").select_option("fast")
        expect(page.locator(".bars button").first).to_be_visible()
        for place in (0, 3):
            page.locator("[data-is=go]").click()
            expect(page.locator("[data-is=stop]")).to_be_disabled()
            typed = page.locator(".token.given").count()
            page.locator(".token").nth(typed + 4 + place).click()
            expect(page.locator(".bars .taken")).to_have_count(1)
            page.locator(".bars button:not(.taken)").nth(place).click()
            expect(page.locator(".bars .taken")).to_have_count(0)
        page.locator("[data-is=go]").click()
        expect(page.locator("[data-is=stop]")).to_be_disabled()
        page.locator(".token").nth(-20).hover()
        take(page, f"ui-chain{end}")
        page.locator("[data-view=compare]").click()
        page.locator("[data-is=count]").fill("70")
        page.locator("[data-is=go]").click()
        expect(page.locator("[data-is=stop]")).to_be_enabled()
        expect(page.locator("[data-is=stop]")).to_be_disabled()
        take(page, f"ui-compare{end}")
        page.locator("[data-view=watch]").click()
        page.get_by_role("checkbox", name="growing").uncheck()
        expect(page.locator("[data-chart]").first).to_be_visible()
        take(page, f"ui-watch{end}")
        page.locator("[data-view=inside]").click()
        page.locator("[data-is=view]").select_option("attention")
        expect(page.frame_locator("iframe").locator("img").first).to_be_visible()
        take(page, f"ui-inside{end}")
    page = new_page(language="zh-CN", scheme="dark", viewport={"width": 360, "height": 1000})
    expect(page.locator(".bars button").first).to_be_visible()
    page.locator("[data-is=one]").click()
    expect(page.locator("[data-is=go]")).to_be_enabled()
    take(page, "ui-phone")
