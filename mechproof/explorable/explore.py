"""One call, two faces: live widgets in a notebook, a self-contained element on a page.

Problem: sliders made for a kernel do nothing on a static page.  Idea: draw every setting once, keep the frames
as runs of a table of distinct SVG lines inside one `text/html` output, and let a short script swap the picture,
its numbers and its alt text.  On a phone a site loads the same settings laid out for it (narrow.py).  Where a
kernel is attached the same `draw` answers core ipywidgets (live.py).  On a site the address carries the setting of
the control that was moved last, `#tradeoff?strategy=cubic&rank=1`.

    def draw(figure, strategy, rank):            # draws, returns (headline, alt text)
        ...
        return ">= 71%", "Scatter of ..."

    explore(draw, strategy={"cubic": "cubic", "svd": "low-rank QK"}, rank=range(5), start={"rank": 1})
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any

from matplotlib.figure import Figure

from ..proof.family import InputError
from . import plots
from .faces import STYLE, TwoFaces, element, named
from .live import Live
from .narrow import narrow

MAX_FRAMES = 400

SCRIPT = """
(function () {
  const root = document.getElementById("ID"), data = JSON.parse(root.querySelector("[data-alts]").textContent);
  const wide = JSON.parse(root.querySelector("[data-frames]").textContent), phone = matchMedia("(max-width: 500px)");
  let frames = wide;
  const controls = [...root.querySelectorAll("[data-control]")], image = root.querySelector("img");
  const onSite = !document.querySelector(".jp-Notebook");
  function link() {
    const said = controls.map((c, i) => c.dataset.control + "=" + encodeURIComponent(data.values[i][Number(c.value)]));
    if (onSite) history.replaceState(null, "", "#NAME?" + said.join("&"));
  }
  function follow() {
    if (!location.hash.startsWith("#NAME?")) return;
    new URLSearchParams(location.hash.slice("#NAME?".length)).forEach((value, name) => {
      const i = controls.findIndex((c) => c.dataset.control === name), at = i < 0 ? -1 : data.values[i].indexOf(value);
      if (at >= 0) controls[i].value = at;
    });
    show();
    root.scrollIntoView();
  }
  const at = () => controls.reduce((at, c, i) => at * data.sizes[i] + Number(c.value), 0);
  let here = [], chosen = "", mark = () => {};
  if (wide.names.length) {
    const frame = root.querySelector(".mechproof-figure");
    const put = (css) => {
      const made = frame.appendChild(document.createElement("div"));
      made.style.cssText = "position:absolute;display:none;pointer-events:none;" + css;
      return (i, text) => {
        made.style.display = i < 0 ? "none" : "";
        if (i < 0) return;
        made.style.left = image.offsetLeft + here[i + 1] / 1000 * image.clientWidth + "px";
        made.style.top = image.offsetTop + here[i + 2] / 1000 * image.clientHeight + "px";
        made.textContent = text;
      };
    };
    const ring = put("box-sizing:border-box;width:16px;height:16px;margin:-8px;border:3px solid #D55E00;"
                     + "border-radius:50%;");
    const label = "background:#fff;color:#111;border:1px solid #767676;border-radius:4px;padding:0 .4em;"
                  + "font-size:.85em;";
    const tip = put(label + "margin:10px 0 0 10px;"), said = put(label + "margin:-2em 0 0 10px;");
    const near = (e) => {
      const box = image.getBoundingClientRect(), set = here;
      let best = 196, found = -1;
      for (let i = 0; i < set.length; i += 3) {
        const dx = e.clientX - box.left - set[i + 1] / 1000 * box.width;
        const dy = e.clientY - box.top - set[i + 2] / 1000 * box.height;
        if (dx * dx + dy * dy < best) [best, found] = [dx * dx + dy * dy, i];
      }
      return found;
    };
    const name = (i) => (i < 0 ? "" : frames.names[here[i]]);
    mark = () => {
      const at = here.findIndex((x, i) => i % 3 === 0 && frames.names[x] === chosen);
      ring(at, "");
      said(at, chosen);
      tip(-1, "");
    };
    frame.style.position = "relative";
    image.addEventListener("pointermove", (e) => { const i = near(e); tip(i, name(i)); });
    image.addEventListener("pointerleave", () => tip(-1, ""));
    image.addEventListener("click", (e) => {
      document.dispatchEvent(new CustomEvent("mechproof-point", { detail: name(near(e)) }));
    });
    document.addEventListener("mechproof-point", (e) => { chosen = e.detail; mark(); });
    addEventListener("resize", () => mark());
    here = frames.points[frames.at[at()][1]];
  }
  const to = (b) => [b.parentElement.querySelector("input"), Number(b.dataset.by)];
  const steps = [...root.querySelectorAll("[data-by]")];
  steps.forEach((b) => b.addEventListener("click", () => {
    const [slider, by] = to(b);
    slider.value = Number(slider.value) + by;
    slider.dispatchEvent(new Event("input"));
  }));
  function show() {
    const state = data.settings[at()], [frame, points] = frames.at[at()];
    controls.forEach((c, i) => {
      c.disabled = state.idle.includes(i);
      const label = data.labels[i][Number(c.value)];
      if (c.type === "range") c.setAttribute("aria-valuetext", label);
      const out = c.parentElement.querySelector("output");
      if (out) out.textContent = label;
    });
    steps.forEach((b) => { const [s, by] = to(b); b.disabled = Number(s.value) === Number(by < 0 ? s.min : s.max); });
    const runs = frames.frames[frame], lines = [];
    for (let i = 0; i < runs.length; i += 2) lines.push(...frames.lines.slice(runs[i], runs[i] + runs[i + 1]));
    const svg = lines.join("\\n");
    image.src = "data:image/svg+xml," + encodeURIComponent(svg);
    image.alt = state.alt;
    root.querySelector("[data-headline]").textContent = state.headline;
    here = frames.points[points];
    mark();
  }
  function fit() {
    const narrow = (window.mechproofNarrow || {})[root.id];
    if (phone.matches && !narrow) return seen.observe(root);
    frames = phone.matches ? narrow : wide;
    root.toggleAttribute("data-narrow", phone.matches);
    show();
  }
  const seen = new IntersectionObserver((entries) => {
    if (!entries.some((e) => e.isIntersecting)) return;
    seen.disconnect();
    const script = document.createElement("script");
    script.src = "../_static/narrow/" + root.id + ".js";
    script.onload = fit;
    document.head.append(script);
  }, { rootMargin: "800px" });
  controls.forEach((c) => c.addEventListener("input", () => { show(); link(); }));
  if (onSite) {
    follow();
    addEventListener("load", follow);
    addEventListener("hashchange", follow);
    if (phone.matches) fit();
    phone.addEventListener("change", fit);
  }
})();
"""

Draw = Callable[..., tuple[str, str]]


@dataclass(frozen=True)
class Explorer(TwoFaces):
    """A drawing that depends on a few controls; shows itself as widgets or as one html element."""

    draw: Draw
    controls: Mapping[str, Mapping[Any, str]]          # name -> {value: label}
    start: Mapping[str, Any]
    idle: Callable[..., Collection[str]]
    hint: str = ""
    height: float = 3.6
    # more values of some controls, for a kernel to draw
    fine: Mapping[str, Mapping[Any, str]] = field(default_factory=dict)
    _figures: list[Figure] = field(default_factory=list, repr=False)

    @property
    def name(self) -> str:
        """What an address calls it: the function that made the drawing."""
        return self.draw.__qualname__.partition(".")[0]

    def frame(self, layout: Callable[[Figure], None] = lambda figure: None, /, **setting) -> tuple[str, str, str]:
        """(svg, headline, alt text) at one setting; the figure is reused from frame to frame."""
        if not self._figures:
            self._figures.append(plots.new_figure(self.height))
        figure = self._figures[0]
        figure.clear()
        figure.set_size_inches(plots.WIDTH, self.height)
        figure.named = []
        with plots.house():
            headline, alt = self.draw(figure, **setting)
            layout(figure)
            return plots.svg(figure), headline, alt

    def settings(self) -> list[dict[str, Any]]:
        """Every combination, the last control fastest."""
        return [dict(zip(self.controls, values)) for values in product(*self.controls.values())]

    def __repr__(self) -> str:
        sizes = " x ".join(f"{name} ({len(options)})" for name, options in self.controls.items())
        _, headline, alt = self.frame(**self.start)
        return f"Explorer of {sizes}, at {dict(self.start)}: {headline}. {alt}"

    def widget(self):
        """Core ipywidgets (also of 7.7): sliders and toggle buttons over a picture."""
        return Live(self.controls | self.fine, self.start, self.idle, self.picture).box

    def picture(self, **setting) -> str:
        """Headline, figure and hint at one setting, as html."""
        return self._picture(*self.frame(**setting))

    def _picture(self, svg: str, headline: str, alt: str) -> str:
        hint = f'<p style="{STYLE["hint"]}"><b>What to try.</b> {html.escape(self.hint)}</p>' if self.hint else ""
        # what follows stays where it is while a picture is changed
        steady = f"aspect-ratio:{plots.WIDTH}/{self.height};"
        return (f'<p data-headline aria-live="polite" style="{STYLE["headline"]}">{html.escape(headline)}</p>'
                f"{plots.image(svg, alt, steady)}{hint}")

    def html(self) -> str:
        """The self-contained element.  Complexity: one drawing a setting.  Errors: InputError above 400 settings."""
        data, idle = self._data, self._idle(self.start)
        controls = "".join(self._control(i, control, i in idle) for i, control in enumerate(self.controls))
        inside = f'<div style="{STYLE["controls"]}">{controls}</div>{self._picture(*self.frame(**self.start))}'
        return element("explorer", inside, data, SCRIPT.replace("NAME", self.name))

    @cached_property
    def _data(self) -> dict[str, str]:
        """What the script reads: the words of every setting, and its drawings."""
        states, frames = self._drawn()
        alts = {"sizes": [len(o) for o in self.controls.values()],
                "labels": [list(o.values()) for o in self.controls.values()],
                "values": [list(map(str, o)) for o in self.controls.values()], "settings": states}
        return {"alts": _json(alts), "frames": _json(frames)}

    def narrow_script(self) -> tuple[str, str]:
        """The element's name, and a script with the same settings drawn for a phone, which a page loads when needed."""
        name = named("explorer", self._data)
        return name, f"(window.mechproofNarrow ||= {{}})[{_json(name)}] = {_json(self._drawn(narrow)[1])};\n"

    def _idle(self, setting: Mapping[str, Any]) -> list[int]:
        """The places of the controls without effect at a setting."""
        off = self.idle(**setting)
        return [i for i, name in enumerate(self.controls) if name in off]

    def _drawn(self, layout: Callable[[Figure], None] = lambda figure: None) -> tuple[list[dict], dict]:
        """Headline, alt text and idle controls of every setting; its frames as runs of lines, its named points."""
        settings = self.settings()
        if len(settings) > MAX_FRAMES:
            raise InputError(f"explorer has {len(settings)} settings; at most {MAX_FRAMES} fit a page: "
                             "offer fewer values")
        lines: dict[str, int] = {}
        frames: dict[tuple[int, ...], int] = {}
        drawn: dict[tuple, tuple[dict[str, str], list[int]]] = {}
        points, states, at = Points(), [], []
        for setting in settings:
            idle = self._idle(setting)
            moved = tuple((i, value) for i, value in enumerate(setting.values()) if i not in idle)
            if moved not in drawn:
                svg, headline, alt = self.frame(layout, **setting)
                packed = _runs(lines.setdefault(line, len(lines)) for line in svg.splitlines())
                drawn[moved] = {"headline": headline, "alt": alt}, [
                    frames.setdefault(packed, len(frames)), points.add(plots.named_points(self._figures[0]))]
            words, place = drawn[moved]
            states.append(words | {"idle": idle})
            at.append(place)
        return states, {"lines": list(lines), "frames": list(frames), "at": at,
                        "names": list(points.names), "points": list(points.sets)}

    def _control(self, i: int, name: str, disabled: bool) -> str:
        options, label = self.controls[name], name.replace("_", " ")
        at = list(options).index(self.start[name])
        said = html.escape(options[self.start[name]])
        common = (f'data-control="{name}" aria-label="{label}" data-lm-suppress-shortcuts="true"'
                  f'{" disabled" if disabled else ""}')
        if all(isinstance(value, int) for value in options):
            slider = (f'<label>{label} <input type=range min=0 max={len(options) - 1} step=1 value={at} '
                      f'aria-valuetext="{said}" {common}> <output>{said}</output></label>')
            return slider if name != "step" else f"<span>{_button(-1, at == 0)} {_button(1, False)} {slider}</span>"
        items = "".join(f'<option value="{j}"{" selected" if j == at else ""}>{html.escape(text)}</option>'
                        for j, text in enumerate(options.values()))
        return f"<label>{label} <select {common}>{items}</select></label>"


def shown(element: str, setting: Mapping[str, str]) -> tuple[str, str, str]:
    """(svg, headline, alt text) that an explorer's html has for a setting, given as its address says it.

    Errors: KeyError for a control that is not set, ValueError for a value that it does not have.
    """
    said, drawn = (json.loads(re.search(rf"data-{key}>(.*?)</script>", element, re.S)[1])
                   for key in ("alts", "frames"))
    at = 0
    for control, values in zip(dict.fromkeys(re.findall(r'data-control="(\w+)"', element)), said["values"]):
        at = at * len(values) + values.index(setting[control])
    runs, state = drawn["frames"][drawn["at"][at][0]], said["settings"][at]
    lines = [line for i in range(0, len(runs), 2) for line in drawn["lines"][runs[i] : runs[i] + runs[i + 1]]]
    return "\n".join(lines), state["headline"], state["alt"]


class Points:
    """Sets of named points, each set once, a point as the number of its name and its place."""

    def __init__(self):
        self.names: dict[str, int] = {}
        self.sets: dict[tuple[int, ...], int] = {}

    def add(self, points: Iterable[tuple[str, int, int]]) -> int:
        """The number of this set."""
        flat = tuple(n for name, x, y in points for n in (self.names.setdefault(name, len(self.names)), x, y))
        return self.sets.setdefault(flat, len(self.sets))


def _button(by: int, disabled: bool) -> str:
    """One step back or on."""
    said = "\u2039 back" if by < 0 else "next \u203a"
    return f'<button type="button" data-by="{by}"{" disabled" if disabled else ""}>{said}</button>'


def _runs(numbers: Iterable[int]) -> tuple[int, ...]:
    """Whole numbers as runs of neighbours: first and length, first and length, ..."""
    runs: list[int] = []
    for n in numbers:
        if runs and n == runs[-2] + runs[-1]:
            runs[-1] += 1
        else:
            runs += [n, 1]
    return tuple(runs)


def _json(value) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).replace("</", "<\\/")


def explore(draw: Draw, start: Mapping[str, Any] | None = None, idle: Callable[..., Collection[str]] = lambda **_: (),
            hint: str = "", height: float = 3.6, fine: Mapping[str, Sequence | Mapping] | None = None,
            **controls: Sequence | Mapping) -> Explorer:
    """An explorer of `draw(figure, **setting) -> (headline, alt text)` over the given controls.

    A control is a sequence of values, or {value: label}; whole numbers become a slider, the rest a menu.  `idle`
    names the controls without effect at a setting; `hint` is the line "What to try"; `fine` gives a control more values
    where a kernel draws.
    Errors: InputError for a start that is no value of its control.
    """
    options, finer = ({name: dict(values) if isinstance(values, Mapping) else {value: str(value) for value in values}
                       for name, values in some.items()} for some in (controls, fine or {}))
    begin = {name: next(iter(values)) for name, values in options.items()} | dict(start or {})
    for name, value in begin.items():
        if name not in options or value not in options[name]:
            raise InputError(f"start {name}={value!r} is no value of a control; "
                             f"it takes {list(options.get(name, options))}")
    return Explorer(draw, options, begin, idle, hint, height, finer)
