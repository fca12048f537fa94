"""All strategies that are cheap, or the chosen ones, on all models of a collection: what the Max-of-K chapters show over many models.

    python benchmarks/max_of_k.py [COLLECTION ...]

Writes mechproof/data/results/<collection>.json, which the book prints from: for every model its accuracy, the ratio of the two largest singular
values of the scores, and for every strategy the certified count and the operations.  Resumes where it stopped.
"""

import json
import sys

import torch
from notes import RESULTS, provenance
from tqdm import tqdm

import mechproof as mp
from mechproof import zoo
from mechproof.max_of_k.paths import paths_of

LIMIT = 2 * 10**9          # brute force is the accuracy that the model carries already
LONG = ("separable-grouped", "separable:groups=12,buckets=12")
CHOSEN = {"max-of-5": ("exact", *LONG), "max-of-10": LONG, "max-of-20": LONG, "max-of-10-v128": ("separable-grouped",),
          "max-of-4-v128": ("exact", "separable-grouped", "separable:groups=24,buckets=16"),
          "max-of-4-v256": ("separable-grouped", "separable:groups=24,buckets=16")}


def singular_ratio(model: mp.Model) -> float:
    """sigma_1 / sigma_2 of the table of scores."""
    sigma = torch.linalg.svdvals(paths_of(model).A.mid)
    return float(sigma[0] / sigma[1].clamp_min(1e-300))


def measure(name: str) -> tuple[list[str], dict]:
    """One model: the ids of every strategy up to LIMIT predicted operations, and what they certify."""
    model = mp.load(name)
    chosen = CHOSEN.get(name.partition("/")[0]) or [s.id for s in mp.strategies(model) if s.cost <= LIMIT]
    bounds = [mp.prove(model, strategy) for strategy in chosen]
    return [b.strategy for b in bounds], {
        "name": name, "accuracy": model.metadata["accuracy"], "singular_ratio": singular_ratio(model),
        "seconds": [round(b.seconds, 3) for b in bounds], "correct": [b.correct for b in bounds], "flops": [b.flops for b in bounds],
        "dimensions": [b.unexplained_dimensions for b in bounds]}


def sweep(collection: str) -> None:
    """Measure what is missing of one collection, writing every ten models."""
    path = RESULTS / f"{collection}.json"
    rows = json.loads(path.read_text())["models"] if path.exists() else []
    todo = [entry["name"] for entry in zoo.models() if entry["collection"] == collection][len(rows) :]
    for name in tqdm(todo, desc=collection, disable=None):
        strategies, row = measure(name)
        rows.append(row)
        if len(rows) % 10 == 0 or name == todo[-1]:
            part = path.with_suffix(".part")
            part.write_text(json.dumps({**provenance(), "strategies": strategies, "models": rows}))
            part.replace(path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for collection in sys.argv[1:] or ["max-of-4", "max-of-4-stripped", *CHOSEN]:
        sweep(collection)
