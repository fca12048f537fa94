"""The house style of figures: one file of rcParams, one meaning a colour, SVG that is the same at every run."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from .narrow import narrow

STYLE = str(Path(__file__).with_name("mechproof.mplstyle"))
# Okabe and Ito's palette, one meaning each throughout the book
QK, OV, EU, NOISE, TRUTH, CHOICE = "#0072B2", "#D55E00", "#009E73", "#7F7F7F", "#000000", "#CC79A7"
PALE = "#c9c9c9"
WIDTH = 7.2            # inches
MARKS = re.compile(r'( *<use [^>]*?)( style="[^"]*")/>\n(?: *<use [^>]*?\2/>\n)+')          # of one style, in a row
UNESCAPED = " =:/;,()-_.~!*@$+'"           # what an SVG in a data address need not escape


@contextmanager
def house():
    """Draw in the house style, whatever the reader's own settings."""
    with matplotlib.rc_context(fname=STYLE):
        yield


def new_figure(height: float = 3.6) -> Figure:
    """A figure of the book's width that no display owns."""
    return Figure(figsize=(WIDTH, height), layout=None)


def svg(figure: Figure) -> str:
    """The figure as SVG text, byte for byte the same for the same drawing;
    a hundredth of a point is as fine as it gets."""
    with house():
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    coarse = lambda tag: re.sub(r"(\.\d{2})\d+", r"\1", tag.group())     # coordinates only: words keep their digits
    return MARKS.sub(_once, re.sub(r"<[^>]+>", coarse, text[text.index("<svg") :]))


def _once(marks: re.Match) -> str:
    """Marks of one kind in a row say their style once, around them."""
    return f"<g{marks[2]}>\n{marks[0].replace(marks[2], '')}</g>\n"


def dots(axes: Axes, x, y, size: float, color: str, alpha: float = 1) -> None:
    """Points without an outline, of so many square points: what a scatter draws, in less text."""
    axes.plot(x, y, "o", markersize=size**0.5, color=color, alpha=alpha, markeredgewidth=0, zorder=1)


def name_points(axes: Axes, x: Iterable[float], y: Iterable[float], names: Iterable[str]) -> None:
    """Points that say their names on a page when pointed at."""
    axes.figure.named = [*getattr(axes.figure, "named", ()), *((axes, *point) for point in zip(names, x, y))]


def named_points(figure: Figure) -> list[tuple[str, int, int]]:
    """Every named point that can be seen, with its place in thousandths of the figure, from the left and the top."""
    found = []
    for axes, name, x, y in getattr(figure, "named", ()):
        place = axes.transData.transform((x, y))
        if axes.bbox.padded(3).contains(*place):
            across, up = figure.transFigure.inverted().transform(place)
            found.append((name, round(1000 * across), round(1000 * (1 - up))))
    return found


def image(text: str, alt: str, style: str = "", phone: str = "") -> str:
    """SVG text as an html image, another on a phone if there is one; else it stands in a frame that scrolls where the
    page is narrow (mechproof.css), also by the keyboard."""
    coded = lambda text, safe=UNESCAPED: f"data:image/svg+xml,{quote(text, safe=safe)}"
    shown = (f'<img style="max-width:100%;width:720px;height:auto;background:#fff;display:block;{style}" '
             f'alt="{html.escape(alt)}" src="{coded(text)}">')
    if phone:
        source = coded(phone, UNESCAPED.replace(" ", ""))                  # a space would end the address
        shown = f'<picture><source media="(max-width: 500px)" srcset="{source}">{shown}</picture>'
    return f'<div class="mechproof-figure" tabindex="0" role="group" aria-label="figure">{shown}</div>'


class Picture:
    """A finished figure with its alt text: one image on a page, its words where images do not show."""

    def __init__(self, figure: Figure, alt: str):
        self.svg, self.alt = svg(figure), alt
        with house():
            narrow(figure)
        self.phone = svg(figure)

    def __repr__(self) -> str:
        return self.alt

    def _repr_html_(self) -> str:
        return image(self.svg, self.alt, phone=self.phone)


def flops_label(x: float, _=None) -> str:
    """100k, 1M, 10M, 1G."""
    for power, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if x >= power:
            return f"{x / power:g}{letter}"
    return f"{x:g}"


def log_ticks(axes: Axes, label) -> None:
    """1, 2, 5, 10, ... along a logarithmic horizontal axis."""
    axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(label))
    axes.xaxis.set_minor_formatter(NullFormatter())


def flops_axis(axes: Axes, low: float, high: float, label: str = "length of the proof (FLOP)") -> None:
    """A logarithmic horizontal axis in FLOP."""
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    log_ticks(axes, flops_label)
    axes.set_xlabel(label)


def percent_axis(axis, label: str) -> None:
    """An axis of fractions, labelled in percent."""
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g}%"))
    axis.set_label_text(label)


def token_map(axes: Axes, table, title: str, rows: str, columns: str, limit: float | None = None, bar: str = "logits"):
    """A table over tokens as a map centred at zero, its diagonal visible, with a colour bar of three ticks."""
    limit = limit or float(abs(table).max())
    image = axes.imshow(table, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="none",
                        aspect="auto", origin="lower")
    axes.set_title(title)
    axes.set_xlabel(columns)
    axes.set_ylabel(rows)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(False)
    colorbar = axes.figure.colorbar(image, ax=axes, ticks=[-limit, 0, limit], pad=0.02)
    colorbar.ax.set_yticklabels([f"{-limit:.2g}", "0", f"{limit:.2g}"])
    colorbar.set_label(bar, fontsize=8.5, labelpad=-6)
    colorbar.outline.set_visible(False)
    return image
