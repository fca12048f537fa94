"""JupyterLab as a reader drives it: open chapter one, run all of it, move a slider by a key, see the figure change."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import labs
import pytest

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A server over a copy of the chapters."""
    if CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip("chromium is not installed; Lab is driven where it is, and always in CI")
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "book", folder / "book", ignore=shutil.ignore_patterns("_static", "_ext"))
    with labs.server(folder) as url:
        yield url


@pytest.fixture
def page(lab):
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        yield page
        browser.close()
    labs.end_sessions(lab)


@pytest.mark.parametrize("attempt", [pytest.param(i, marks=pytest.mark.slow if i < 3 else pytest.mark.exhaustive) for i in range(10)])
def test_a_key_moves_a_slider_and_the_figure_follows(lab, page, attempt):
    labs.run_all(page, lab, "book/max_of_k.ipynb", f"reader{attempt}")
    assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    explorer = page.locator(".widget-vbox").filter(has=page.locator("[data-headline]")).nth(1)
    explorer.scroll_into_view_if_needed()
    image, seen = explorer.locator("img"), set()
    handle = explorer.locator(".noUi-handle").last                       # the rank
    handle.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        before = image.get_attribute("alt")
        page.keyboard.press(key)
        page.wait_for_function("([image, alt]) => document.contains(image) && image.alt !== alt || !document.contains(image)",
                               arg=[image.element_handle(), before], timeout=20_000)
        seen.add(explorer.locator("img").get_attribute("alt"))
    assert len(seen) == 2 and all("rank" in alt for alt in seen)
    assert page.locator(".jp-Cell").first.is_visible()                   # no key left the cell or turned it into text


@pytest.mark.slow
def test_theorems_render_in_lab(lab, page):
    labs.run_all(page, lab, "book/pizza_quadrature.ipynb", "theorems")
    told = page.locator(".jp-MarkdownCell").filter(has_text="Put the neurons in any order")
    assert told.count() == 1 and "Arcs" in told.inner_text() and "prf:theorem" not in told.inner_text()
