"""The live face of an explorer: core ipywidgets over a picture that is drawn when it is asked for.

Problem: a slider that is dragged asks for twenty drawings, and a drawing may need a proof first.  Idea: a kernel
handles all messages that have come before it turns to what was put off; so put the drawing off by a moment, and
begin anew with every further move: the last one wins.  What takes longer than BUSY seconds says so meanwhile,
from a thread of its own.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import Callable, Collection, Mapping
from threading import Timer
from typing import Any

from ..proof.family import InputError

MOMENT, BUSY = 0.005, 0.2


class Live:
    """The controls (name -> {value: label}), the value that each starts with, those without effect at a setting,
    and the picture."""

    def __init__(self, controls: Mapping[str, Mapping[Any, str]], start: Mapping[str, Any],
                 idle: Callable[..., Collection[str]], picture: Callable[..., str]):
        import ipywidgets as widgets
        self.idle, self.drawn, self.inputs, self.later = idle, picture, {}, None
        for name, options in controls.items():
            slides = all(isinstance(value, int) for value in options)
            kind = widgets.SelectionSlider if slides else widgets.Dropdown
            self.inputs[name] = kind(options=[(label, value) for value, label in options.items()], value=start[name],
                                     description=name.replace("_", " "), layout=widgets.Layout(width="480px"))
            self.inputs[name].observe(self.moved, "value")
        self.busy, self.picture = widgets.HTML(layout=widgets.Layout(height="1.5em")), widgets.HTML()
        self.box = widgets.VBox([*self.inputs.values(), self.busy, self.picture])
        self.draw()

    def setting(self) -> dict:
        return {name: control.value for name, control in self.inputs.items()}

    def moved(self, _=None) -> None:
        """A control has a new value: draw soon, unless another move comes first;
        at once where nothing can be put off."""
        if self.later:
            self.later.cancel()
        try:
            self.later = asyncio.get_running_loop().call_later(MOMENT, self.draw)
        except RuntimeError:
            self.draw()

    def draw(self) -> None:
        """The picture of the controls' setting, or the one line that says why there is none."""
        setting = self.setting()
        for name, control in self.inputs.items():
            control.disabled = name in self.idle(**setting)
        timer = Timer(BUSY, lambda: setattr(self.busy, "value", "<i>computing …</i>"))
        timer.start()
        try:
            self.picture.value = self.drawn(**setting)
        except InputError as error:
            self.picture.value = f"<p>{html.escape(str(error))}</p>"
        finally:
            timer.cancel()
            timer.join()
            self.busy.value = ""
