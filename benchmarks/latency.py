"""From a key to a new figure, on the page and in JupyterLab, and what a page weighs.

    python benchmarks/latency.py          # after `make book`; prints

Medians of 23 presses. In Lab the same figure is moved once by our explorer and once by `interactive` with its `Output`.
"""

import gzip
import json
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import labs  # noqa: E402

SITE, PRESSES = ROOT / "_build" / "html", 23
CHAPTERS = ("index", "max_of_k", "past_the_paper", "pizza_quadrature", "noise_limits", "reproduction")
OURS = """import mechproof as mp
from mechproof.figures import max_of_k as figures
survey = figures.Survey(mp.load("max-of-4/0"))
strategy = figures.NAMED_IDS["rank-r QK, rest by singular value"]
explorer = figures.tradeoff(survey, strategy, 4)
for rank in range(33):
    survey.bound(strategy, rank)
explorer"""
THEIRS = """%matplotlib inline
import ipywidgets
from IPython.display import display
from mechproof.explorable import plots
def show(rank):
    figure = plots.new_figure(explorer.height)
    with plots.house():
        explorer.draw(figure, strategy=strategy, rank=rank)
        display(figure)
ipywidgets.interactive(show, rank=ipywidgets.SelectionSlider(options=list(range(33)), value=4))"""
# the time from the key's event to the decoded new picture, in milliseconds
WATCH = """scope => { window.taken = []; let start = 0;
  document.addEventListener("keydown", () => { start = performance.now(); }, true);
  const done = (image) => image.decode().then(() => { if (start) window.taken.push(performance.now() - start); start = 0; }, () => {});
  new MutationObserver((changes) => changes.forEach((change) => {
    if (change.type === "attributes") done(change.target);
    const inside = [...change.addedNodes].flatMap((node) => node.querySelectorAll ? [node, ...node.querySelectorAll("img")] : []);
    inside.filter((node) => node.tagName === "IMG").forEach(done);
  })).observe(document.querySelector(scope) || document.body, {subtree: true, childList: true, attributes: true, attributeFilter: ["src"]});
}"""


def presses(page: Page, scope: str, handle) -> float:
    """The median time of so many presses, to and fro."""
    page.evaluate(WATCH, scope)
    handle.focus()
    for i in range(PRESSES):
        page.keyboard.press("ArrowUp" if i % 2 else "ArrowDown")          # sliders and menus alike
        page.wait_for_function("n => window.taken.length > n", arg=i, timeout=20_000)
        page.wait_for_timeout(120)
    return median(page.evaluate("window.taken"))


def on_the_page(page: Page, address: str) -> dict:
    """First paint, weight, and a key's time, by chapter."""
    out = {}
    for name in CHAPTERS:
        page.goto(f"{address}/book/{name}.html")
        page.wait_for_load_state("load")
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        sliders, menus = page.locator("[data-explorer] input[type=range]:enabled"), page.locator("[data-explorer] select:enabled")
        key = presses(page, "main", (sliders if sliders.count() else menus).first)
        text = (SITE / "book" / f"{name}.html").read_bytes()
        out[name] = {"first_paint_ms": round(paint), "key_ms": round(key, 1), "kB_gzipped": round(len(gzip.compress(text)) / 1000)}
    return out


def in_lab(page: Page, folder: Path) -> dict:
    """A key's time with our explorer and with `interactive`, in one notebook."""
    cells = [new_code_cell(OURS), new_code_cell(THEIRS)]
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}),
                   folder / "latency.ipynb")
    times = {}
    with labs.server(folder) as url:
        for name, cell, at in (("ours_ms", 0, 1), ("interactive_ms", 1, 0)):
            labs.run_all(page, url, "latency.ipynb", name, 3)
            times[name] = round(presses(page, ".jp-Notebook", page.locator(".jp-CodeCell").nth(cell).locator(".noUi-handle").nth(at)), 1)
            labs.end_sessions(url)
    return times | {"ratio": round(times["ours_ms"] / times["interactive_ms"], 2)}


def main() -> None:
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder, labs.files(SITE) as address:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        new = lambda: browser.new_page(viewport={"width": 1300, "height": 1000})
        found = {"pages": on_the_page(new(), address), "lab": in_lab(new(), Path(folder))}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
