"""Your own model: a field for the path of a file, and what can be proved about it.

Problem: a chapter is about models that ship; a reader has others.  Idea: every strategy that a family lists runs on
any file with its tensors, so a field and a button are enough; on a page, which has no kernel, the table of a shipped
model stands in its place.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from .. import zoo
from ..explorable.faces import TwoFaces
from ..proof import proving
from ..proof.bound import Bound
from ..proof.family import InputError

# predicted operations up to which a strategy is tried
CHEAP = 10**8
COMMAND = "python -m mechproof prove FILE --strategy all"


class Yours(TwoFaces):
    """The bounds of one model, by path or shipped name; shows itself as a field and a table, or as a table."""

    def __init__(self, name: str, strategies: Sequence[str] = ()):
        self.name, self.chosen = name, strategies

    def bounds(self, name: str, **said: str) -> list[tuple[str, Bound]]:
        """What is proved of the model and by what (label, bound), the strongest first.
        Errors: InputError, as `load` and `prove`."""
        model = zoo.load(name.strip().strip("'\""), **said)
        listed = {s.id: s for s in proving.strategies(model)}
        cheap = [id for id, s in listed.items() if s.cost <= CHEAP] or [
            id for id, s in listed.items() if s.cost <= proving.COST_LIMIT][:1]
        ids = [id for id in self.chosen if id in listed] or cheap
        return sorted(((listed[id].label, proving.prove(model, id)) for id in ids),
                      key=lambda found: (-found[1].correct, found[1].flops))

    def text(self, name: str, **said: str) -> str:
        """A line a bound, or the one line that says what is wrong with the file."""
        try:
            lines = [f"{label:42} {bound}" for label, bound in self.bounds(name, **said)]
            return "\n".join(lines) or "every proof that there is would take long here; on the command line it can"
        except InputError as error:
            return str(error)

    def __repr__(self) -> str:
        return f"{self.name}\n{self.text(self.name)}\nOf a file of yours: {COMMAND}"

    def widget(self):
        """A field, a button and the table, with core ipywidgets."""
        import ipywidgets as widgets
        field, button = widgets.Text(self.name, description="model"), widgets.Button(description="prove")
        out = widgets.HTML()
        plain = widgets.Checkbox(False, description="my file has one head and no normalization", indent=False)

        def show(_=None):
            out.value = "<i>computing …</i>"
            said = {"normalization_type": "none", "n_heads": "1"} if plain.value else {}
            out.value = f"<pre>{html.escape(self.text(field.value, **said))}</pre>"

        button.on_click(show)
        show()
        return widgets.VBox([widgets.HBox([field, button]), plain, out])
