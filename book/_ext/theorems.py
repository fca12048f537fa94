"""Theorems and code know one another: a docstring that says *Title* of a theorem is linked from it, and leads there.

One source for both directions: `Theorem: *Narrow door*.` in the docstring of what computes it, `Attacks *Narrow door*.`
in that of a test that tries to break it.  Below each theorem of the book stands what says so; on the API page, the words
become a link.  There the docstrings stand as they are in the code, line by line.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx_proof.nodes import lemma_node, theorem_node

ROOT = Path(__file__).parents[2]
SAYS = re.compile(r"(?:Theorem|Lemma|Attacks):? \*([^*]+)\*")
API = "book/api"


def documented(path: Path):
    """Every function and class of a file with its dotted name and docstring."""
    def inside(node: ast.AST, name: str):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                yield f"{name}{child.name}", " ".join((ast.get_docstring(child) or "").split())
                yield from inside(child, f"{name}{child.name}.")
    yield from inside(ast.parse(path.read_text()), "")


@cache
def who_says() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """{title: names of what computes it} and {title: tests that attack it}."""
    code, tests = defaultdict(list), defaultdict(list)
    for path in sorted((ROOT / "mechproof").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for name, text in documented(path):
            for title in SAYS.findall(text):
                code[title].append(f"{module}.{name}")
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        for name, text in documented(path):
            for title in SAYS.findall(text):
                tests[title].append(f"{path.name}::{name}")
    return code, tests


def title_of(theorem: nodes.Element) -> str:
    found = next(theorem.findall(nodes.title))
    return re.sub(r"^.*?\((.*)\)$", r"\1", found.astext())


def in_code(app, doctree: nodes.document, docname: str) -> None:
    """Below every theorem: what computes it, with links, and the tests that try to break it."""
    code, tests = who_says()
    home = app.builder.get_relative_uri(docname, API)
    for theorem in [*doctree.findall(theorem_node), *doctree.findall(lemma_node)]:
        title = title_of(theorem)
        if title not in code or title not in tests:
            raise ValueError(f"theorem {title!r} of {docname} is named in no docstring of the library or of the tests")
        line = nodes.paragraph(classes=["in-code"])
        line += nodes.Text("In code: ")
        for i, name in enumerate(code[title]):
            short = name.removeprefix("mechproof.")
            line += [nodes.Text(", " if i else ""), nodes.reference("", "", nodes.literal("", short), internal=True,
                                                                    refuri=f"{home}#{name}")]
        line += [nodes.Text("; attacked by "), nodes.literal("", ", ".join(tests[title]))]
        theorem.parent.insert(theorem.parent.index(theorem) + 1, line)


def as_they_stand(app, what, name, obj, options, lines: list[str]) -> None:
    """The first paragraph as text, the rest line by line as in the code, and a link to each theorem that it names."""
    titles, text = SAYS.findall(" ".join(lines)), [line.rstrip() for line in lines]
    first, rest = text[: (text + [""]).index("")], text[(text + [""]).index("") + 1:]
    rest = [line for line in rest if not re.fullmatch(rf" *{SAYS.pattern}\.", line)]
    body = [re.sub(r"([\\*`|_])", r"\\\1", " ".join(first)), ""]
    if any(rest):
        body += [".. code-block:: text", "", *(f"   {line}" for line in rest), ""]
    for title in titles:
        body += [f"In the book: :prf:ref:`{LABELS[title]}`", ""]
    lines[:] = body


class CommandHelp(Directive):
    """What the command line says of itself, command by command."""

    def run(self) -> list[nodes.Node]:
        from mechproof.__main__ import parser
        top = parser()
        commands = next(action for action in top._actions if isinstance(action, argparse._SubParsersAction)).choices
        blocks = [top.format_help(), *(sub.format_help() for sub in commands.values())]
        return [nodes.literal_block(text, text, language="text") for text in blocks]


def labels_of() -> dict[str, str]:
    """{title: label} of all theorems and lemmas of the book."""
    found = {}
    for path in [*sorted((ROOT / "book").glob("*.md")), *sorted((ROOT / "book").glob("*.ipynb"))]:
        text = path.read_text().replace("\\n", "\n").replace('",\n', "\n").replace('    "', "")
        for title, label in re.findall(r"\{prf:(?:theorem|lemma)\} (.+)\n+:label: ([\w-]+)", text):
            found[title.strip()] = label
    return found


LABELS = labels_of()


def setup(app) -> dict:
    app.add_directive("command-help", CommandHelp)
    app.connect("doctree-resolved", in_code)
    app.connect("autodoc-process-docstring", as_they_stand)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
