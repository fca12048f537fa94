"""How pages of the book differ from what the theme makes of them: pictures first, and no script that nobody asked for.

A chapter opens with its picture; the cells that prepare it (parameters, imports) and the line that draws it follow.
"""

from docutils import nodes


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


def without_thebe(app, pagename, templatename, context, doctree) -> None:
    """Kernels in the page are not offered; the theme's line for them stands twice and is an error in every console."""
    body = lambda script: str(getattr(script, "attributes", {}).get("body", ""))
    context["script_files"] = [script for script in context["script_files"]
                               if "THEBE" not in body(script) and "thebe" not in str(getattr(script, "filename", ""))]


def setup(app) -> dict:
    app.connect("doctree-read", pictures_first)
    app.connect("html-page-context", without_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
