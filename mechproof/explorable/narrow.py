"""A finished figure laid out once more for a phone: panels below one another, words that wrap, labels that fit.

Problem: a figure of the page's width shows words of seven pixels on a phone.  Idea: panels keep their height, margins
are measured instead of scaled, and only what lies between them gets narrower; the drawing itself need not know.
"""

from __future__ import annotations

import re
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Annotation, Text
from matplotlib.ticker import FixedLocator

WIDTH = 4.4            # inches: at 358 pixels, words of ten points are eleven pixels tall
EDGE, LINE = 0.08, 0.19


def narrow(figure: Figure) -> None:
    """Lay the figure out anew, `WIDTH` inches wide.  Complexity: O(what is drawn)."""
    tall = figure.get_size_inches()[1]
    columns = _columns(figure.axes)
    figure.set_size_inches(WIDTH, tall)
    for column in columns:
        _stretch(column)
    places = [[axes.get_position() for axes in column] for column in columns]
    boxes = [(min(place.y0 for place in some), max(place.y1 for place in some)) for some in places]
    rooms, notes = [_room_above_and_below(column) for column in columns], [_note(text) for text in figure.texts]
    total = sum(notes) + sum(sum(room) + (high - low) * tall for room, (low, high) in zip(rooms, boxes))
    figure.set_size_inches(WIDTH, total)
    ceiling = total
    for column, (above, below), (low, high) in zip(columns, rooms, boxes):
        floor = ceiling - above - (high - low) * tall
        for axes in column:
            place = axes.get_position()
            axes.set_position((place.x0, (floor + (place.y0 - low) * tall) / total,
                               place.width, place.height * tall / total))
        ceiling = floor - below
    for text, height in zip(figure.texts, notes):
        ceiling -= height
        text.set_position((EDGE / WIDTH, (ceiling + EDGE) / total))


def _note(text: Text) -> float:
    """Break a line below the panels where the figure ends; how many inches it takes."""
    text.set_text(" ".join(text.get_text().split()))
    _wrap(text, (WIDTH - 2 * EDGE) * text.figure.dpi)
    return text.get_window_extent(text.figure._get_renderer()).height / text.figure.dpi + EDGE


def _columns(panels: list[Axes]) -> list[list[Axes]]:
    """Panels that stand beside one another, from the left; a colour bar stays with its map."""
    columns: list[list[Axes]] = []
    right = -1.0
    for axes in sorted(panels, key=lambda axes: axes.get_position().x0):
        if axes.get_position().x0 > right + 0.02:
            columns.append([])
        columns[-1].append(axes)
        right = max(right, axes.get_position().x1)
    return columns


def _stretch(column: list[Axes]) -> None:
    """Put a column across the figure, first roughly, then by what its labels were found to need."""
    before = {axes: axes.get_position() for axes in column}
    left, right = min(place.x0 for place in before.values()), max(place.x1 for place in before.values())
    legends = {axes: legend for axes in column if (legend := _lone_legend(axes))}
    margins = 0.6, 0.2
    for _ in range(2):
        scale = (1 - sum(margins) / WIDTH) / (right - left)
        for axes, place in before.items():
            axes.set_position((margins[0] / WIDTH + (place.x0 - left) * scale, place.y0,
                               place.width * scale, place.height))
            _thin(axes)
            _wrap(axes.yaxis.label, axes.bbox.height)
            for text in axes.texts:
                _wrap(text, 0.6 * axes.bbox.width)
        margins = _margins(column)
    for axes in column:
        _part(axes)
        _head_and_foot(axes)
        if axes in legends:
            labels = axes.xaxis.get_tightbbox(axes.figure._get_renderer()) or axes.bbox
            legends[axes].set_bbox_to_anchor((_title(axes).get_position()[0],
                                              (labels.y0 - axes.bbox.y0) / axes.bbox.height), transform=axes.transAxes)


def _head_and_foot(axes: Axes) -> None:
    """The title from the figure's left edge, the label below in the middle of the panel or as near as it fits."""
    place, title, label = axes.get_position(), _title(axes), axes.xaxis.label
    for text in (title, label):
        _wrap(text, (WIDTH - 2 * EDGE) * axes.figure.dpi)
    title.set_x((EDGE / WIDTH - place.x0) / place.width)
    half = label.get_window_extent(axes.figure._get_renderer()).width / axes.figure.bbox.width / 1.88 + EDGE / WIDTH
    label.set_x((min(max(place.x0 + place.width / 2, half), 1 - half) - place.x0) / place.width)


def _lone_legend(axes: Axes) -> Legend | None:
    """A legend that takes half of the panel or stands beside it, made anew to go below, one entry a line."""
    legend = axes.get_legend()
    if legend:
        box = legend.get_window_extent(axes.figure._get_renderer())
        if box.width > 0.5 * (WIDTH - 1) * axes.figure.dpi or box.x1 > axes.bbox.x1 + 2:
            words = [text.get_text() for text in legend.get_texts()]
            return axes.legend(legend.legend_handles, words, loc="upper left", bbox_to_anchor=(0, 0))
    return None


def _title(axes: Axes) -> Text:
    """In the house style titles stand on the left."""
    return axes._left_title if axes._left_title.get_text() else axes.title


def _wrap(text: Text, room: float) -> None:
    """Break words into lines of at most so many pixels."""
    words, box = text.get_text(), text.get_window_extent(text.figure._get_renderer())
    long = max(box.width, box.height)                                     # whichever way it runs
    if words and "\n" not in words and "$" not in words and long > 0.94 * room:          # browsers set wider
        text.set_text(fill(words, max(8, int(0.9 * len(words) * room / long))))


def _margins(column: list[Axes]) -> tuple[float, float]:
    """Inches left and right of a column's panels that its labels take."""
    left, right = min(axes.bbox.x0 for axes in column), max(axes.bbox.x1 for axes in column)
    boxes = [box for axes in column for box in _labels(axes, lambda box: box.x0 > axes.bbox.x1 - 2)]
    dpi = column[0].figure.dpi
    wide = left - min(box.x0 for box in boxes), max(0, max(box.x1 for box in boxes) - right)
    return 1.04 * wide[0] / dpi + EDGE, 1.04 * wide[1] / dpi + EDGE       # browsers set wider


def _room_above_and_below(column: list[Axes]) -> tuple[float, float]:
    """Inches above and below a column's panels that titles and labels take."""
    low, high = min(axes.bbox.y0 for axes in column), max(axes.bbox.y1 for axes in column)
    boxes = [box for axes in column for box in _labels(axes, lambda box: box.y0 > high - 2 or box.y1 < low + 2)]
    dpi = column[0].figure.dpi
    lines = max(_title(axes).get_text().count("\n") + 1 if _title(axes).get_text() else 0 for axes in column)
    return ((max(0, max(box.y1 for box in boxes) - high) / dpi + 0.22 + LINE * lines,
             (low - min(box.y0 for box in boxes)) / dpi + EDGE))


def _labels(axes: Axes, outside) -> list:
    """The boxes of the panel itself, its axes' labels, and its texts that stand outside."""
    renderer = axes.figure._get_renderer()
    found = [axis.get_tightbbox(renderer) for axis in (axes.yaxis, axes.xaxis) if axes.axison]
    more = [*axes.texts, *filter(None, [axes.get_legend()])]
    found += [box for text in more if text.get_visible() and outside(box := text.get_window_extent(renderer))]
    return [axes.bbox, *filter(None, found)]


def _part(axes: Axes) -> None:
    """A label that leaves its panel on the left goes to the other side; of labels that touch the first is shown."""
    renderer, kept = axes.figure._get_renderer(), []
    for text in axes.texts:
        if isinstance(text, Annotation) and text.get_window_extent(renderer).x0 < axes.bbox.x0 and text.xyann[0] < 0:
            text.xyann = -text.xyann[0], text.xyann[1]
            text.set_ha("left")
        box = text.get_window_extent(renderer).padded(-2)
        text.set_visible(not any(box.overlaps(other) for other in kept))
        kept += [box] * text.get_visible()


def _thin(axes: Axes) -> None:
    """Labels along the horizontal axis do not touch: names break between words, or lean; of numbers some are shown."""
    ticks = axes.xaxis.get_major_ticks()
    names = [tick.label1.get_text() for tick in ticks]
    if isinstance(axes.xaxis.get_major_locator(), FixedLocator) and any(re.search("[a-z]{3}", name) for name in names):
        axes.set_xticks(axes.get_xticks(), [re.sub(r"(?<=[a-z]) ", "\n", name) for name in names])
        if _touching(axes):
            axes.set_xticks(axes.get_xticks(), [name.replace("\n", " ") for name in names], rotation=35, ha="right",
                            rotation_mode="anchor")
    else:
        for tick in ticks:
            tick.label1.set_visible(True)
        for tick in _touching(axes):
            tick.label1.set_visible(False)


def _touching(axes: Axes) -> list:
    """The ticks whose labels begin before one that stands to the left has ended."""
    renderer, right, found = axes.figure._get_renderer(), float("-inf"), []
    for tick in axes.xaxis.get_major_ticks():
        box = tick.label1.get_window_extent(renderer)
        if tick.label1.get_text() and box.x0 <= right + 4:
            found.append(tick)
        elif tick.label1.get_text():
            right = box.x1
    return found
