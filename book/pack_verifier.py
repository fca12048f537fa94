"""The verifier as one file that any Python with numpy and python-flint runs: book/_static/mechproof-verify.pyz.

    python book/pack_verifier.py [OUTPUT]

The same bytes at every run: entries in order of names, without times.
"""

import io
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAIN = 'import runpy\n\nrunpy.run_module("mechproof_verifier", run_name="__main__")\n'


def zipped(files: dict[str, bytes], start: bytes = b"") -> bytes:
    """A zip archive behind some first bytes: entries in order of names, without times."""
    file = io.BytesIO()
    file.write(start)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name), files[name], zipfile.ZIP_DEFLATED)
    return file.getvalue()


def pack(output: Path) -> None:
    """Write the zipapp whole or not at all."""
    files = {"__main__.py": MAIN.encode()}
    for path in sorted((ROOT / "mechproof" / "verifier").glob("*.py")):
        files[f"mechproof_verifier/{path.name}"] = path.read_bytes()
    part = output.with_suffix(".part")
    part.write_bytes(zipped(files, b"#!/usr/bin/env python3\n"))
    part.chmod(0o755)
    part.replace(output)


if __name__ == "__main__":
    pack(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "book" / "_static" / "mechproof-verify.pyz")
