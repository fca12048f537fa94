"""JupyterLab as a reader drives it: open chapter one, run all of it, move a slider by a key, see the figure change."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium")
SETTINGS = {"notebook-extension/tracker": {"windowingMode": "none"},
            "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}


def answers(url: str, method: str = "GET") -> list | dict | None:
    """What the server says, or None while it does not."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=5) as reply:
            text = reply.read()
    except OSError:
        return None
    return json.loads(text) if text else {}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A server over a copy of the chapters, with settings and workspaces of its own."""
    if CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip("chromium is not installed; Lab is driven where it is, and always in CI")
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "book", folder / "book", ignore=shutil.ignore_patterns("_static", "_ext"))
    for name, values in SETTINGS.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {key: value for key, value in os.environ.items() if key != "MECHPROOF_MODE"} | {
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"), "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("w") as log:
        flags = ["--no-browser", "--allow-root", "--expose-app-in-browser", "--IdentityProvider.token=", f"--port={port}",
                 f"--ServerApp.root_dir={folder}"]
        server = subprocess.Popen([sys.executable, "-m", "jupyter", "lab", *flags], stdout=log, stderr=log, env=env)
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while answers(f"{url}/api/sessions") is None:
            assert server.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-1000:]
            time.sleep(0.3)
        yield url
        server.terminate()
        server.wait(10)


@pytest.fixture
def page(lab):
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        yield page
        browser.close()
    for session in answers(f"{lab}/api/sessions") or []:
        answers(f"{lab}/api/sessions/{session['id']}", "DELETE")


def run_all(page, lab: str, chapter: str, workspace: str) -> None:
    """Open a chapter and run all of it."""
    page.goto(f"{lab}/lab/workspaces/{workspace}/tree/book/{chapter}.ipynb?reset")
    idle = page.locator("#jp-main-statusbar").get_by_text("Idle")
    idle.wait_for(timeout=60_000)
    page.wait_for_timeout(300)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    page.wait_for_function("() => document.querySelectorAll('.jp-Notebook .noUi-handle').length > 2", timeout=120_000)
    idle.wait_for(timeout=180_000)


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(3))
def test_a_key_moves_a_slider_and_the_figure_follows(lab, page, attempt):
    run_all(page, lab, "max_of_k", f"reader{attempt}")
    assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    explorer = page.locator(".widget-vbox").filter(has=page.locator("[data-headline]")).first
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
    run_all(page, lab, "pizza_quadrature", "theorems")
    told = page.locator(".jp-MarkdownCell").filter(has_text="Put the neurons in any order")
    assert told.count() == 1 and "Arcs" in told.inner_text() and "prf:theorem" not in told.inner_text()
