"""Your own model: a field for a file, and what can be proved about it; and kinds of networks that ship, as examples.

Problem: a chapter is about models that ship; a reader has others.  Idea: every strategy that a family lists runs on
any file with its tensors, so a field and a button are enough; on a page, which has no kernel, shipped models stand in
its place.
"""

from __future__ import annotations

import html
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import LogLocator

from .. import zoo
from ..explorable import plots
from ..explorable.explore import Explorer, explore
from ..explorable.faces import TwoFaces
from ..proof import proving
from ..proof.bound import Bound, percent_lo, short
from ..proof.family import InputError, Model
from ..proof.names import STRATEGIES
from ..zoo import networks, tables
from .pieces import NOTE, choice, missing_axis

# predicted operations up to which a strategy is tried
CHEAP = 10**8
COMMAND = "python -m mechproof prove FILE --strategy all"
# networks that ship, one of each kind
EXAMPLES = {"max-of-4/0": "one head", "max-of-4-h2/0": "two heads", "max-of-4-h4/0": "four heads",
            "max-of-4-ln/0": "layer norm", "max-of-5-sign/0": "closing = sign", "pizza-59/0": "modular addition",
            "tasks-induction/0": "induction, two layers", "tasks-brackets/0": "brackets, two layers and MLPs"}


class Yours(TwoFaces):
    """The bounds of one model, by path or shipped name; shows itself as a field and a table, or as a table."""

    def __init__(self, name: str, strategies: Sequence[str] = ()):
        self.name, self.chosen = name, strategies

    def load(self, name: str, **said: str) -> Model:
        """The model of a name or path, quoted or not.  Errors: InputError, as `load`."""
        return zoo.load(name.strip().strip("'\""), **said)

    def bounds(self, model: Model) -> list[tuple[str, Bound]]:
        """What is proved of the model and by what (label, bound), the strongest first.
        Errors: InputError, as `prove`."""
        listed = {s.id: s for s in proving.strategies(model)}
        cheap = [id for id, s in listed.items() if s.cost <= CHEAP] or [
            id for id, s in listed.items() if s.cost <= proving.COST_LIMIT][:1]
        ids = [id for id in self.chosen if id in listed] or cheap
        return sorted(((listed[id].label, proving.prove(model, id)) for id in ids),
                      key=lambda found: (-found[1].correct, found[1].flops))

    def text(self, name: str, **said: str) -> str:
        """What the file is taken for, and a line a bound; or the one line that says what is wrong with it."""
        try:
            model = self.load(name, **said)
            lines = [f"{label:42} {bound}" for label, bound in self.bounds(model)]
            what = [repr(model), *filter(None, [model.metadata.get("read_as"), networks.sampled(model)]), ""]
            return "\n".join([*what, *(lines or ["every proof that there is would take long here; on the command line "
                                                 "it can"])])
        except InputError as error:
            return str(error)

    def __repr__(self) -> str:
        return f"{self.text(self.name)}\nOf a file of yours: {COMMAND}"

    def widget(self):
        """A field, an upload, what a file leaves out, a button and the table, with core ipywidgets."""
        import ipywidgets as widgets
        wide = {"layout": widgets.Layout(width="440px")}
        field = widgets.Text(self.name, description="model", **wide)
        upload = widgets.FileUpload(accept=".safetensors,.pt,.pth", multiple=False)
        say = widgets.Text(description="say", placeholder="what it leaves out: normalization_type=none", **wide)
        button, out = widgets.Button(description="prove"), widgets.HTML()

        def show(_=None):
            out.value = "<i>computing …</i>"
            out.value = f"<pre>{html.escape(self.text(field.value, **pairs(say.value)))}</pre>"

        def received(_=None):
            with tempfile.TemporaryDirectory() as folder:
                name, content = uploaded(upload.value)
                path = Path(folder) / Path(name).name
                path.write_bytes(content)
                text = self.text(str(path), **pairs(say.value)).replace(str(path), path.name)
                out.value = f"<pre>{html.escape(text)}</pre>"

        button.on_click(show)
        upload.observe(received, "value")
        show()
        return widgets.VBox([widgets.HBox([field, upload]), widgets.HBox([say, button]), out])


def pairs(text: str) -> dict[str, str]:
    """`normalization_type='none', n_heads=1`, or the same with spaces, as a dictionary."""
    found = re.findall(r"""(\w+)\s*=\s*(?:'([^']*)'|"([^"]*)"|([^\s,]+))""", text)
    return {key: next(filter(None, values), "") for key, *values in found}


def uploaded(value: Sequence[Mapping[str, Any]] | Mapping[str, Mapping[str, Any]]) -> tuple[str, bytes]:
    """Name and content of a file, as ipywidgets 7 or 8 hand it over."""
    if isinstance(value, Mapping):
        (name, entry), = value.items()
        return name, bytes(entry["content"])
    return value[0]["name"], bytes(value[0]["content"])


def examples() -> Explorer:
    """Which proofs a network of each kind has, by length, from the tables that ship."""
    found, trying = {}, {}
    for name in EXAMPLES:
        rows = tables.shipped(name.partition("/")[0])
        found[name] = rows[(rows.model == name) & rows.error.isna()].sort_values("flops")
        # as predicted, where it takes too long for a table
        cost = next(s.cost for s in proving.strategies(zoo.load(name)) if s.id == "brute_force")
        trying[name] = int(found[name].flops[found[name].strategy == "brute_force"].max()) if (
            (found[name].strategy == "brute_force").any()) else cost
    low, high = min(float(rows.flops.min()) for rows in found.values()), float(max(trying.values()))

    def draw(figure, network: str):
        axes, rows = figure.add_axes((0.11, 0.16, 0.86, 0.71)), found[network]
        plots.flops_axis(axes, low / 2, high * 8)
        missing_axis(axes, 1e-5)
        axes.set_ylim(1.4, 1e-5)
        y = (1 - rows.accuracy_lower_bound).clip(lower=1.4e-5)
        axes.axvline(trying[network], color=plots.TRUTH, linestyle=":", linewidth=1)
        axes.annotate("trying every input", (trying[network], 0.02), (-6, 0), rotation=90, ha="right", va="center",
                      **NOTE)
        # six decades
        axes.xaxis.set_major_locator(LogLocator(10))
        plots.dots(axes, rows.flops, y, 30, plots.NOISE, 0.6)
        best = rows[rows.accuracy_lower_bound == rows.accuracy_lower_bound.max()].iloc[0]
        choice(axes, best.flops, max(1 - best.accuracy_lower_bound, 1.4e-5), 9)
        n, share, tried = len(rows), percent_lo(best.correct, best.total), short(trying[network])
        label = STRATEGIES[best.strategy.partition(":")[0]].label
        axes.set_title(f"{share} by '{label}', in {short(best.flops)} operations; trying takes {tried}")
        return (f"{EXAMPLES[network]}: {n} proof{'s' * (n > 1)} in the tables, the best {share}",
                f"Scatter of certified share against length of {n} proofs of {network} ({EXAMPLES[network]}). "
                f"Strongest: {label}, {share} in {short(best.flops)} operations; trying takes {tried}.")

    return explore(draw, {"network": "max-of-4-h2/0"}, hint="From one head to four: fewer proofs, and still short "
                   "ones. Of two layers there is one, which is to try every input.", height=3.6, network=EXAMPLES)
