"""The built page in a browser: a slider moves figure and alt text, nothing leaves the machine, nothing complains."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

SITE = Path(__file__).parents[1] / "_build" / "html"
CHROMIUM = shutil.which("chromium")
KNOWN = "THEBE_JS_URL"          # the theme declares it twice on every page; harmless


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip("chromium is not installed; the browser tests run where it is, and always in CI")
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    assert (SITE / "index.html").exists(), "the site is not built: run `make book`"
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.problems, page.requests_out = [], []
    page.on("pageerror", lambda e: None if KNOWN in str(e) else page.problems.append(str(e)))
    page.on("console", lambda m: page.problems.append(m.text) if m.type == "error" else None)
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else page.requests_out.append(r.url))
    yield page
    assert page.problems == [] and page.requests_out == []
    page.close()


EXPLORERS = {"max_of_k": 6, "past_the_paper": 3, "pizza_quadrature": 8, "noise_limits": 10}       # chapter: how many at least


def open_chapter(page, name: str = "max_of_k") -> None:
    page.goto((SITE / "book" / f"{name}.html").as_uri())
    page.wait_for_load_state("load")


def state(explorer) -> tuple[str, str, str]:
    image = explorer.locator("img")
    return image.get_attribute("src"), image.get_attribute("alt"), explorer.locator("[data-headline]").inner_text()


def test_a_slider_changes_figure_alt_text_and_numbers(page):
    open_chapter(page)
    explorer = page.locator("[data-explorer]").first
    before = state(explorer)
    explorer.locator("input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    after = state(explorer)
    assert all(a != b for a, b in zip(before, after)) and after[2].startswith(">= ")
    assert page.evaluate("(i) => i.decode().then(() => i.naturalWidth)", explorer.locator("img").element_handle()) > 400
    page.keyboard.press("ArrowLeft")
    assert state(explorer)[1:] == before[1:]


def test_a_menu_disables_the_control_without_effect(page):
    open_chapter(page)
    explorer = page.locator("[data-explorer]").first
    explorer.locator("select").select_option(label="cubic")
    assert explorer.locator("input[type=range]").is_disabled() and "Cubic" not in state(explorer)[1][:5]
    explorer.locator("select").select_option(label="quadratic QK")
    assert explorer.locator("input[type=range]").is_enabled()


@pytest.mark.parametrize("chapter", EXPLORERS)
def test_every_control_moves_its_figure_from_end_to_end(page, chapter):
    open_chapter(page, chapter)
    explorers = page.locator("[data-explorer]:not([data-ask])")
    assert explorers.count() >= EXPLORERS[chapter]
    for i in range(explorers.count()):
        explorer = explorers.nth(i)
        for control in explorer.locator("[data-control]:enabled").all():
            seen = set()
            last = control.evaluate("c => c.tagName === 'SELECT' ? c.options.length - 1 : Number(c.max)")
            for value in (0, last):
                control.evaluate("(c, v) => { c.value = v; c.dispatchEvent(new Event('input', {bubbles: true})); }", str(value))
                src, alt, _ = state(explorer)
                assert src.startswith("data:image/svg+xml,") and len(alt) > 40
                seen.add((src, alt))
            assert len(seen) == 2, f"explorer {i}: {control.get_attribute('data-control')} changes nothing"


def test_asking_about_typed_tokens_agrees_with_the_library(page):
    import mechproof as mp
    from mechproof.max_of_k import figures
    bound = mp.prove(mp.load("max-of-4/0"), figures.NAMED_IDS["exact QK"])
    open_chapter(page)
    ask = page.locator("[data-ask]")
    for text in ("3 41 17 29", "3, 41, 40, 29", "41 41 41 41", "0 0 0 0", "63 62 61 60", "5 5 9 9"):
        ask.locator("input").fill(text)
        answer = ask.locator("[data-answer]").inner_text()
        case = bound.why([int(t) for t in text.replace(",", " ").split()])
        assert answer.startswith("Certified") == case.covered
        assert case.reason.split(" needs")[0].split(", all")[0] in answer
    ask.locator("input").fill("1 2 99 4")
    assert ask.locator("[data-answer]").inner_text().startswith("Give 4 whole numbers from 0 to 63")


@pytest.mark.parametrize("chapter, theorems", [("max_of_k", 2), ("past_the_paper", 1), ("pizza_quadrature", 6), ("noise_limits", 1)])
def test_formulas_theorems_and_solutions_render(page, chapter, theorems):
    open_chapter(page, chapter)
    page.wait_for_selector("mjx-container svg")
    assert page.locator(".proof.theorem").count() >= theorems and page.locator("mjx-merror").count() == 0
    solution = page.locator(".solution.dropdown, .solution").first
    assert solution.count() == 1
    assert page.get_by_text("WARNING").count() == 0


@pytest.mark.parametrize("chapter", EXPLORERS)
def test_first_frames_show_without_javascript(browser, chapter):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    open_chapter(page, chapter)
    explorers = page.locator("[data-explorer]:not([data-ask])")
    assert explorers.count() >= EXPLORERS[chapter]
    for i in range(explorers.count()):
        src, alt, headline = state(explorers.nth(i))
        assert src.startswith("data:image/svg+xml,") and alt and headline
    context.close()


def test_every_picture_has_alt_text(page):
    for name in ("index", "max_of_k", "past_the_paper", "why_it_works", "certificates", "pizza_quadrature", "noise_limits", "references"):
        open_chapter(page, name)
        assert page.locator("main img:not([alt]), main img[alt='']").count() == 0


def test_the_verifier_and_its_vectors_can_be_downloaded(page):
    open_chapter(page, "certificates")
    links = [a.get_attribute("href") for a in page.locator("main a.download").all()]
    assert len(links) >= 2 and all((SITE / "book" / link).resolve().stat().st_size > 1000 for link in links)
    page.wait_for_selector("table")
