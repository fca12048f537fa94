"""Type your own tokens: which case of a proof covers them, with which margin, with and without a kernel.

Problem: sixteen million inputs do not fit a page.  Idea: the groups of a subcubic proof do; a page can carry each
group's gap and margin, find the group of what the reader types, and say what `bound.why` would say.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..explorable.faces import STYLE, TwoFaces, element
from ..proof.bound import Bound
from ..proof.family import InputError

SCRIPT = """
(function () {
  const root = document.getElementById("ID"), data = JSON.parse(root.querySelector("[data-groups]").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const gaps = new Uint16Array(bytes(data.gaps).buffer), margins = new Float32Array(bytes(data.margins).buffer);
  const input = root.querySelector("input"), answer = root.querySelector("[data-answer]");
  function why(tokens) {
    const ok = tokens.length === data.K && tokens.every((t) => Number.isInteger(t) && t >= 0 && t < data.v);
    if (!ok) return "Give " + data.K + " whole numbers from 0 to " + (data.v - 1) + ", with spaces between them.";
    const q = tokens[data.K - 1], m = Math.max(...tokens), below = tokens.filter((t) => t < m), n = below.length;
    const at = (q * data.v + m) * data.K + n, smaller = n + " smaller token" + (n === 1 ? "" : "s");
    const group = "query " + q + ", maximum " + m + ", " + smaller;
    if (gaps[at] === 0) return "Not certified: group (" + group + ") is not claimed: no gap makes it provable.";
    const second = Math.max(...below, -1);
    const needs = ") needs a gap of " + gaps[at] + " below the maximum; " + second + " is closer.";
    if (n && second > m - gaps[at]) return "Not certified: group (" + group + needs;
    if (!(margins[at] > 0)) return "Not certified: group (" + group + ") was claimed but the check does not accept it.";
    const limit = n ? ", all at most " + (m - gaps[at]) : "";
    const least = Math.floor(margins[at] * 1000) / 1000;
    return "Certified: group (" + group + limit + "), by at least " + least + " logits.";
  }
  function show() { answer.textContent = why(input.value.trim().split(/[\\s,]+/).filter(Boolean).map(Number)); }
  input.addEventListener("input", show);
})();
"""


@dataclass(frozen=True)
class Ask(TwoFaces):
    """A text field over one subcubic bound; shows itself live or as a self-contained element."""

    bound: Bound
    start: Sequence[int]

    def answer(self, text: str) -> str:
        """What `bound.why` says of tokens typed with spaces or commas, or how to type them."""
        try:
            return repr(self.bound.why([int(t) for t in text.replace(",", " ").split()])).capitalize()
        except (InputError, ValueError) as error:
            return str(error).splitlines()[0]

    def __repr__(self) -> str:
        return (f"Ask about any input of {self.bound.model}; {list(self.start)}: "
                f"{self.answer(' '.join(map(str, self.start)))}")

    def groups(self) -> str:
        """Gap and certified margin of every group (q, m, n), as JSON with base64 arrays."""
        claims, case = self.bound.case.claims, self.bound.case
        v, _, n_ctx = claims.gaps.shape
        margins = torch.zeros(v, v, n_ctx, dtype=torch.float64)
        q, m, n, _ = claims.rows.unbind(1)
        margins[q, m, n] = -case.worst
        margins[torch.arange(v), torch.arange(v), 0] = -case.alone
        single = margins.float()
        # rounded downwards
        rounded = torch.where((single.double() >= margins) & (margins > 0),
                              single.nextafter(torch.tensor(-torch.inf)), single)
        pack = lambda array, kind: base64.b64encode(array.numpy().astype(kind).tobytes()).decode()
        return json.dumps({"K": n_ctx, "v": v, "gaps": pack(claims.gaps, "<u2"), "margins": pack(rounded, "<f4")})

    def html(self) -> str:
        text, size = " ".join(map(str, self.start)), 3 * len(self.start) + 12
        inside = (f'<label>tokens, the query last <input type="text" value="{text}" data-control="tokens" '
                  f'data-lm-suppress-shortcuts="true" size="{size}"></label>'
                  f'<p data-answer aria-live="polite" style="{STYLE["headline"]}">{html.escape(self.answer(text))}</p>')
        return element("ask", inside, {"groups": self.groups()}, SCRIPT)

    def widget(self):
        """The same with core ipywidgets and the library itself."""
        import ipywidgets as widgets
        field, out = widgets.Text(" ".join(map(str, self.start)), description="tokens"), widgets.HTML()
        show = lambda _=None: setattr(out, "value", html.escape(self.answer(field.value)))
        field.observe(show, "value")
        show()
        return widgets.VBox([field, out])
