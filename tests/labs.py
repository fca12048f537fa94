"""Servers of one's own: plain files, and a JupyterLab in which a chapter is run as a reader would."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

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


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        pass


@contextmanager
def files(folder: Path) -> Iterator[str]:
    """The address of a plain file server over this folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The address of a Lab over this folder, with settings and workspaces of its own."""
    for name, values in SETTINGS.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {key: value for key, value in os.environ.items() if key != "MECHPROOF_MODE"} | {
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"), "OMP_NUM_THREADS": "1"}
    flags = ["--no-browser", "--allow-root", "--expose-app-in-browser", "--IdentityProvider.token=", f"--port={port}",
             f"--ServerApp.root_dir={folder}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "jupyter", "lab", *flags], stdout=log, stderr=log, env=env)
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
        try:
            while answers(f"{url}/api/sessions") is None:
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-1000:]
                time.sleep(0.3)
            yield url
        finally:
            process.terminate()
            process.wait(10)


def end_sessions(url: str) -> None:
    for session in answers(f"{url}/api/sessions") or []:
        answers(f"{url}/api/sessions/{session['id']}", "DELETE")


def run_all(page, url: str, notebook: str, workspace: str, handles: int = 3) -> None:
    """Open a notebook, run all of it, and wait until the kernel is idle and so many sliders are there."""
    page.goto(f"{url}/lab/workspaces/{workspace}/tree/{notebook}?reset")
    idle = page.locator("#jp-main-statusbar").get_by_text("Idle")
    idle.wait_for(timeout=60_000)
    page.wait_for_timeout(300)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    page.wait_for_function("n => document.querySelectorAll('.jp-Notebook .noUi-handle').length >= n", arg=handles, timeout=120_000)
    idle.wait_for(timeout=180_000)
