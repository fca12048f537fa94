"""Execute the chapters in place, deterministically: outputs are committed, so that what is checked is what is published.

    python book/execute.py [CHAPTER.ipynb ...]
"""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

BOOK = Path(__file__).parent


def execute(path: Path) -> None:
    """Run every cell; write the notebook back only if all succeeded."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", record_timing=False, coalesce_streams=True,
                   resources={"metadata": {"path": str(BOOK)}}).execute()
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    part = path.with_suffix(".part")
    nbformat.write(notebook, part)
    part.replace(path)


if __name__ == "__main__":
    os.environ |= {"MECHPROOF_MODE": "page", "OMP_NUM_THREADS": "1"}
    for chapter in sys.argv[1:] or sorted(BOOK.glob("*.ipynb")):
        execute(Path(chapter))
