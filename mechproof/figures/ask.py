"""Type your own tokens: which case of a proof covers them, with which margin, with and without a kernel.

Problem: sixteen million inputs do not fit a page.  Idea: the groups of a subcubic proof do; a page can carry each
group's gap and margin, find the group of what the reader types, and say what `bound.why` would say.  The network's five
tables fit as well: what it answers stands beside what is certified, for "not certified" is not "wrong".
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..explorable.faces import STYLE, TwoFaces, element
from ..max_of_k.paths import Paths
from ..proof.bound import Bound
from ..proof.family import InputError, check_tokens
from .pieces import answered, best_but

TABLES = ("A", "B", "EU", "OV", "PV")       # in float32 they answer; they certify nothing
CLOSE = 0.005                               # logits that two printed decimals do not tell apart, and float32 may not

SCRIPT = """
(function () {
  const root = document.getElementById("ID"), data = JSON.parse(root.querySelector("[data-groups]").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const gaps = new Uint16Array(bytes(data.gaps).buffer), margins = new Float32Array(bytes(data.margins).buffer);
  const input = root.querySelector("input"), answer = root.querySelector("[data-answer]");
  const floats = (name) => new Float32Array(bytes(data.tables[name]).buffer);
  const [A, B, EU, OV, PV] = ["A", "B", "EU", "OV", "PV"].map(floats), says = root.querySelector("[data-network]");
  function network(tokens) {
    const v = data.v, K = data.K, q = tokens[K - 1];
    const weight = tokens.map((t, p) => A[q * v + t] + B[q * K + p]), top = Math.max(...weight);
    const alpha = weight.map((w) => Math.exp(w - top)), sum = alpha.reduce((x, y) => x + y);
    const logits = Array.from({ length: v }, (_, i) => EU[q * v + i] + tokens.reduce(
      (x, t, p) => x + alpha[p] / sum * (OV[t * v + i] + PV[p * v + i]), 0));
    const m = Math.max(...tokens), others = logits.map((x, i) => (i === m ? -Infinity : x));
    const second = others.indexOf(Math.max(...others)), lead = logits[m] - logits[second];
    if (Math.abs(lead) < CLOSE) return "The network has " + m + " and " + second + " next to alike.";
    const by = Math.abs(lead).toFixed(2) + " logits ";
    return lead > 0 ? "The network answers " + m + ", which is right, " + by + "ahead of " + second + "."
      : "The network answers " + second + ", which is wrong: " + m + " is " + by + "behind.";
  }
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
  function show() {
    const tokens = input.value.trim().split(/[\\s,]+/).filter(Boolean).map(Number), said = why(tokens);
    answer.textContent = said;
    says.textContent = said.startsWith("Give") ? "" : network(tokens);
  }
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
        text = " ".join(map(str, self.start))
        return (f"Ask about any input of {self.bound.model}; {list(self.start)}: "
                f"{self.answer(text)} {self.network(text)}")

    def network(self, text: str) -> str:
        """What the network itself answers to tokens typed with spaces or commas; nothing if they cannot be read."""
        try:
            tokens = check_tokens([int(t) for t in text.replace(",", " ").split()], self.bound.case.model.sizes)
        except (InputError, ValueError):
            return ""
        (_, logits), m = answered(Paths(self.bound.case.model), tokens), max(tokens)
        second = best_but(logits, m)
        lead = float(logits[m] - logits[second])
        if abs(lead) < CLOSE:
            return f"The network has {m} and {second} next to alike."
        return (f"The network answers {m}, which is right, {lead:.2f} logits ahead of {second}." if lead > 0 else
                f"The network answers {second}, which is wrong: {m} is {-lead:.2f} logits behind.")

    def groups(self) -> str:
        """Gap and certified margin of every group (q, m, n) and the network's tables, as JSON with base64 arrays."""
        claims, case, paths = self.bound.case.claims, self.bound.case, Paths(self.bound.case.model)
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
        return json.dumps({"K": n_ctx, "v": v, "gaps": pack(claims.gaps, "<u2"), "margins": pack(rounded, "<f4"),
                           "tables": {name: pack(getattr(paths, name).mid, "<f4") for name in TABLES}})

    def html(self) -> str:
        text, size = " ".join(map(str, self.start)), 3 * len(self.start) + 12
        inside = (f'<label>tokens, the query last <input type="text" value="{text}" data-control="tokens" '
                  f'data-lm-suppress-shortcuts="true" size="{size}"></label>'
                  f'<p data-answer aria-live="polite" style="{STYLE["headline"]}">{html.escape(self.answer(text))}</p>'
                  f'<p data-network aria-live="polite">{self.network(text)}</p>')
        return element("ask", inside, {"groups": self.groups()}, SCRIPT.replace("CLOSE", str(CLOSE)))

    def widget(self):
        """The same with core ipywidgets and the library itself."""
        import ipywidgets as widgets
        field, out = widgets.Text(" ".join(map(str, self.start)), description="tokens"), widgets.HTML()
        show = lambda _=None: setattr(out, "value", f"<b>{html.escape(self.answer(field.value))}</b><br>"
                                                    f"{self.network(field.value)}")
        field.observe(show, "value")
        show()
        return widgets.VBox([field, out])
