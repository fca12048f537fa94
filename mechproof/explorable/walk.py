"""A proof that one steps through: an explorer whose first control is the step, each step a drawing of its own.

Problem: a reader who meets a theorem before an example is lost.  Idea: one case of an actual proof, in a handful of
pictures that follow one another; each uses those controls that its drawing takes, and the others are off.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from .explore import Draw, Explorer, explore


def walk(steps: Mapping[str, Draw], start: Mapping[str, Any] | None = None, hint: str = "", height: float = 3.6,
         **controls: Sequence | Mapping) -> Explorer:
    """An explorer of steps, {what a step is called: its drawing}, in their order.

    A drawing takes the figure and some of the controls by name, and returns (headline, alt text) as for `explore`.
    """
    drawings = list(steps.values())
    uses = [set(inspect.signature(drawing).parameters) for drawing in drawings]
    said = {i: f"{i} of {len(steps)}: {name}" for i, name in enumerate(steps, 1)}

    def walked(figure, step: int, **setting) -> tuple[str, str]:
        return drawings[step - 1](figure, **{name: setting[name] for name in setting if name in uses[step - 1]})

    return explore(walked, {"step": 1} | dict(start or {}), lambda step, **_: set(controls) - uses[step - 1],
                   hint, height, step=said, **controls)
