"""All strategies that are cheap, on all models of a collection: what the Max-of-K chapter shows over many models.

    python benchmarks/max_of_k.py [COLLECTION ...]

Writes benchmarks/results/<collection>.json: for every model its accuracy, the ratio of the two largest singular
values of the scores, and for every strategy the certified count and the operations.  Resumes where it stopped.
"""

import json
import platform
import subprocess
import sys
from pathlib import Path

import torch
from tqdm import tqdm

import mechproof as mp
from mechproof import zoo
from mechproof.max_of_k.paths import Paths

RESULTS = Path(__file__).parent / "results"
LIMIT = 2 * 10**9          # brute force is the accuracy that the model carries already


def provenance() -> dict:
    """Commit and machine, for every results file."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {"commit": commit, "machine": platform.processor() or platform.machine(), "torch": torch.__version__}


def singular_ratio(model: mp.Model) -> float:
    """sigma_1 / sigma_2 of the table of scores."""
    sigma = torch.linalg.svdvals(Paths(model).A.mid)
    return float(sigma[0] / sigma[1])


def measure(name: str) -> dict:
    """One model: every strategy up to LIMIT predicted operations."""
    model = mp.load(name)
    bounds = [mp.prove(model, s.id) for s in mp.strategies(model) if s.cost <= LIMIT]
    return {"name": name, "accuracy": model.metadata["accuracy"], "singular_ratio": singular_ratio(model),
            "strategies": [b.strategy for b in bounds], "correct": [b.correct for b in bounds],
            "flops": [b.flops for b in bounds], "dimensions": [b.unexplained_dimensions for b in bounds]}


def main(collections: list[str]) -> None:
    torch.set_num_threads(1)
    names = [entry["name"] for entry in zoo.models() if entry["collection"] in collections]
    for collection in collections:
        path = RESULTS / f"{collection}.json"
        rows = json.loads(path.read_text())["models"] if path.exists() else []
        done = {row["name"] for row in rows}
        todo = [name for name in names if name.startswith(collection + "/") and name not in done]
        for i, name in enumerate(tqdm(todo, desc=collection, disable=None)):
            rows.append(measure(name))
            if i % 10 == 9 or name == todo[-1]:
                strategies = rows[0]["strategies"]
                slim = [{k: v for k, v in row.items() if k != "strategies"} for row in rows]
                part = path.with_suffix(".part")
                part.write_text(json.dumps({**provenance(), "strategies": strategies, "models": slim}))
                part.replace(path)
                rows = [{**row, "strategies": strategies} for row in slim]


if __name__ == "__main__":
    main(sys.argv[1:] or ["max-of-4"])
