"""How pages of the book differ from what the theme makes of them: pictures first, words explained, no idle script.

A chapter opens with its picture; the cells that prepare it (parameters, imports) and the line that draws it follow.
Where a page first uses a word of the glossary, the word leads there and says what it means when pointed at.
"""

import re
import sys
from pathlib import Path

from docutils import nodes

sys.path.insert(0, str(Path(__file__).parents[1]))
from mechproof.proof.names import KINDS  # noqa: E402
from write_glossary import TERMS  # noqa: E402

GLOSSARY = "book/glossary"
NAMES = {name.label: name.says for names in KINDS.values() for name in names.values() if " " in name.label}
# what already means something, is set apart, or stands on a tinted ground
NOT_INSIDE = (nodes.title, nodes.literal, nodes.literal_block, nodes.reference, nodes.math, nodes.math_block, nodes.raw,
              nodes.Admonition, nodes.term, nodes.image)


def draws(cell: nodes.Node) -> bool:
    """Whether a cell shows a figure."""
    return any("mechproof-figure" in raw.astext() for raw in cell.findall(nodes.raw))


def part(cell: nodes.Element, name: str) -> nodes.Element | None:
    return next((child for child in cell.children if name in child.get("classes", ())), None)


def pictures_first(app, doctree: nodes.document) -> None:
    """In a cell that draws, the figure stands above the code; hidden cells right before it come after."""
    cells = [node for node in doctree.findall(nodes.container) if "cell" in node.get("classes", ())]
    for cell in cells:
        code, output = part(cell, "cell_input"), part(cell, "cell_output")
        if not draws(cell) or not output:
            continue
        if code:
            cell.remove(code)
            cell.append(code)
        siblings = cell.parent.children
        at = first = siblings.index(cell)
        while first and "tag_hide-input" in siblings[first - 1].get("classes", ()):
            first -= 1
        before = siblings[first:at]
        for hidden in before:
            cell.parent.remove(hidden)
        for hidden in reversed(before):
            cell.parent.insert(cell.parent.index(cell) + 1, hidden)


def plain(text: nodes.Text) -> bool:
    """Whether it is running text of a page, and no words of a link that leads elsewhere already (html has no link in a
    link)."""
    siblings = text.parent.children
    before = siblings[siblings.index(text) - 1] if siblings.index(text) else None
    if isinstance(before, nodes.raw) and before.astext().startswith("<a "):
        return False
    above = text.parent
    while above is not None:
        boxed = {"proof", "exercise", "solution", "admonition", "cell"} & set(above.get("classes", ()))
        if isinstance(above, NOT_INSIDE) or boxed:
            return False
        above = above.parent
    return True


def explain_words(app, doctree: nodes.document, docname: str) -> None:
    """The first use of every word of the glossary becomes a link with its meaning as hover text."""
    if docname in (GLOSSARY, "book/api") or not docname.startswith("book/"):
        return
    home = app.builder.get_relative_uri(docname, GLOSSARY)
    objects, says = app.env.get_domain("std").objects, NAMES | TERMS
    left = {term for term in says if len(term) > 1 and ("term", term) in objects}
    for text in [text for text in doctree.findall(nodes.Text) if plain(text)]:
        pieces, rest = [], str(text)
        while found := min((m for term in left if (m := re.search(rf"\b{re.escape(term)}s?\b", rest, re.IGNORECASE))),
                           key=lambda m: (m.start(), -m.end()), default=None):
            term = next(t for t in left if found[0].lower() in (t.lower(), t.lower() + "s"))
            left.discard(term)
            pieces += [nodes.Text(rest[: found.start()]),
                       nodes.reference("", found[0], internal=True, classes=["word"], reftitle=says[term],
                                       refuri=f"{home}#{objects['term', term][1]}")]
            rest = rest[found.end():]
        if pieces:
            text.parent.replace(text, [*pieces, nodes.Text(rest)])


def without_thebe(app, pagename, templatename, context, doctree) -> None:
    """Kernels in the page are not offered; the theme's line for them stands twice and is an error in every console."""
    body = lambda script: str(getattr(script, "attributes", {}).get("body", ""))
    context["script_files"] = [script for script in context["script_files"]
                               if "THEBE" not in body(script) and "thebe" not in str(getattr(script, "filename", ""))]


def setup(app) -> dict:
    app.connect("doctree-read", pictures_first)
    app.connect("doctree-resolved", explain_words)
    app.connect("html-page-context", without_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
