"""What the benchmarks share: where a number comes from, and a note of it that is made once."""

import json
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import torch

from mechproof import zoo

RESULTS = zoo.DATA / "results"


def provenance() -> dict:
    """Commit and machine, for every results file."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {"commit": commit, "machine": platform.processor() or platform.machine(), "torch": torch.__version__}


def once(path: Path, make: Callable[[], dict | list]) -> dict | list:
    """What `make` returns, read from `path` if it is there: a run that was stopped goes on where it was."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with zoo.whole(path) as part:
            part.write_text(json.dumps(make()))
    return json.loads(path.read_text())


def publish(name: str, data: dict) -> None:
    """Write a results file of the book, with its provenance."""
    with zoo.whole(RESULTS / f"{name}.json") as part:
        part.write_text(json.dumps({**provenance(), **data}))
