"""What a group takes along: slides for each session, a page for each long chapter, made of the book itself.

The guide's table of a session becomes its slides: a row a slide, every figure that a row points to in the setting that
the link names, every question with its answer folded.  A handout has a chapter's theorem, one picture, and the first
three *Learned*; where a Chromium is found it is also printed as PDF.
"""

from __future__ import annotations

import base64
import html
import re
import shutil
import subprocess
import sys
from pathlib import Path
from string import Template
from urllib.parse import parse_qsl

from docutils import nodes
from sphinx_proof.nodes import theorem_node
from theorems import title_of

sys.path.insert(0, str(Path(__file__).parents[1]))
from mechproof.explorable.explore import shown  # noqa: E402

GUIDE, FRAME = "book/reading_group", Template(Path(__file__).with_name("frame.html").read_text())
# chapter: its theorem and its picture, as an address
HANDOUTS = {"max_of_k": ("Subcubic bound", "walk?step=5&rank=1&gap=8"),
            "past_the_paper": ("A sum of single-token functions", "frontier?strategy=exact&rank=12"),
            "pizza_quadrature": ("Arcs", "walk?step=3&difference=10&key=49&rank=12"),
            "noise_limits": ("Rungs", "slack_curve?slack=12&rank=1")}
PDF = ("--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", "--virtual-time-budget=20000")


def picture(app, address: str) -> str:
    """An explorer's drawing at the setting that an address names, `chapter.html#name?control=value&...`, as html."""
    page, _, rest = address.partition(".html#")
    name, _, query = rest.partition("?")
    for raw in app.env.get_doctree(f"book/{page}").findall(nodes.raw):
        if f'"#{name}?' in raw.astext():
            svg, headline, alt = shown(raw.astext(), dict(parse_qsl(query)))
            coded = base64.b64encode(svg.encode()).decode()
            return (f'<p class="says">{html.escape(headline)}</p>'
                    f'<img alt="{html.escape(alt)}" src="data:image/svg+xml;base64,{coded}">')
    raise ValueError(f"{address}: no figure of that name on that page")


def part(app, node: nodes.Node) -> str:
    """A node of a page as html."""
    return app.builder.render_partial(node.deepcopy())["fragment"]


def slide(*inside: str) -> str:
    return f"<section>{''.join(inside)}</section>"


def of_a_row(app, row: nodes.row) -> list[str]:
    """A row of a session's table: what happens, then one slide for every figure that it points to."""
    minutes, happens = row.children[0].astext(), "".join(part(app, child) for child in row.children[1].children)
    slides = [slide(f"<h2>Minutes {minutes}</h2>{happens}")]
    for address, words in re.findall(r'<a href="([^"]+\.html#\w+\?[^"]*)">(.*?)</a>', happens):
        slides.append(slide(f"<h2>{words}</h2>", picture(app, html.unescape(address)),
                            f'<p><a href="{address}">move it</a></p>'))
    return slides


def of_a_question(app, item: nodes.list_item) -> str:
    """A question, and its answer folded."""
    first = item.children[0]
    asked = first.children[0].astext()
    answer = nodes.paragraph("", "", *[child.deepcopy() for child in first.children[1:]])
    return slide(f"<h2>{html.escape(asked)}</h2><details><summary>what a good answer touches</summary>"
                 f"{part(app, answer)}</details>")


def slides(app, session: nodes.section) -> str:
    """All slides of a session of the guide."""
    title = session.next_node(nodes.title).astext()
    found = [slide(f"<h1>{html.escape(title)}</h1>", part(app, session.next_node(nodes.paragraph)))]
    for row in session.next_node(nodes.tbody).children:
        found += of_a_row(app, row)
    found += [of_a_question(app, item) for item in session.next_node(nodes.bullet_list).children]
    return page("slides", title, "\n".join(found) + '<script src="../_static/slides.js"></script>')


def handout(app, chapter: str) -> str:
    """One page: the chapter's theorem, a picture, the first three *Learned*."""
    wanted, address = HANDOUTS[chapter]
    doctree = app.env.get_and_resolve_doctree(f"book/{chapter}", app.builder)
    title = doctree.next_node(nodes.title).astext()
    theorem = next(node for node in doctree.findall(theorem_node) if title_of(node) == wanted)
    said = "".join(part(app, node) for node in theorem.children if not isinstance(node, nodes.title))
    learned = [node for node in doctree.findall(nodes.paragraph) if node.astext().startswith("Learned.")][:3]
    parts = [f'<p class="screen"><a href="handout_{chapter}.pdf">as PDF</a></p>' if browser() else "",
             f"<h1>{html.escape(title)}</h1>",
             f'<div class="theorem"><p class="says">Theorem: {html.escape(wanted)}</p>{said}</div>',
             picture(app, f"{chapter}.html#{address}"), *(part(app, node) for node in learned)]
    return page("handout", title, "".join(parts))


def browser() -> str | None:
    """What prints: without it the handouts are pages only."""
    return shutil.which("chromium") or shutil.which("google-chrome")


def page(kind: str, title: str, body: str) -> str:
    """A page of a kind, which has its style in _static."""
    return FRAME.substitute(kind=kind, title=html.escape(title), body=body)


def write(app, exception) -> None:
    """After the book, what is made of it."""
    if exception or app.builder.name != "html":
        return
    folder = Path(app.outdir) / "book"
    app.builder.current_docname = GUIDE
    guide = app.env.get_and_resolve_doctree(GUIDE, app.builder)
    sessions = [node for node in guide.findall(nodes.section)
                if node.next_node(nodes.title).astext().startswith("Session")]
    for number, session in enumerate(sessions, 1):
        (folder / f"slides_{number}.html").write_text(slides(app, session))
    for chapter in HANDOUTS:
        app.builder.current_docname = f"book/{chapter}"
        made = folder / f"handout_{chapter}.html"
        made.write_text(handout(app, chapter))
        if browser():
            subprocess.run([browser(), *PDF, f"--print-to-pdf={made.with_suffix('.pdf')}", made.as_uri()],
                           check=True, capture_output=True, timeout=120)


def setup(app) -> dict:
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
