"""What shows itself in two ways: as widgets where a kernel is attached, as one self-contained element on a page."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping

STYLE = {"root": "border:0;margin:1.2em 0;",
         "controls": "display:flex;flex-wrap:wrap;gap:.4em 1.6em;align-items:center;margin:0 0 .5em;",
         "headline": "font-size:1.35em;font-weight:600;line-height:1.3;margin:.2em 0 .4em;min-height:1.3em;",
         "hint": "font-size:.9em;margin:.5em 0 0;"}


# what stands over controls whose script has not run
DEAD = ('<p data-dead style="font-size:.9em;margin:0 0 .4em;">The controls do not move here yet: in a notebook choose '
        "<i>Run &gt; Run All Cells</i>, in a page allow its script.</p>")


def is_live() -> bool:
    """Whether a frontend with a kernel is attached; MECHPROOF_MODE=live|page overrides."""
    mode = os.environ.get("MECHPROOF_MODE")
    if mode:
        return mode == "live"
    return "google.colab" in sys.modules or "JPY_SESSION_NAME" in os.environ or "VSCODE_PID" in os.environ


class TwoFaces:
    """A thing with a `widget`, and for a page its `repr` and, where it has one, its `html`."""

    def html(self) -> str:
        return ""

    def widget(self):
        raise NotImplementedError

    def _ipython_display_(self) -> None:
        from IPython.display import display
        if is_live():
            display(self.widget())
        else:
            html = self.html()
            display({"text/plain": repr(self)} | ({"text/html": html} if html else {}), raw=True)


def named(kind: str, data: Mapping[str, str]) -> str:
    """What a page calls an element: its kind and a hash of its data."""
    return f"{kind}-{hashlib.sha256(''.join(data.values()).encode()).hexdigest()[:12]}"


def element(kind: str, inside: str, data: Mapping[str, str], script: str) -> str:
    """Html of some kind, with its data (name -> JSON) and the script that moves it, in which ID stands for its name."""
    name = named(kind, data)
    mark = "" if kind == "explorer" else f" data-{kind}"
    texts = "".join(f'<script type="application/json" data-{key}>{text}</script>' for key, text in data.items())
    return (f'<div id="{name}" data-explorer{mark} role="group" style="{STYLE["root"]}">{DEAD}{inside}{texts}'
            f'<script>document.querySelector("#{name} [data-dead]").remove();'
            f'{script.replace("ID", name)}</script></div>')
