"""Bounds on networks that compose in a group, of more seeds than ship, resumably: mechproof/data/results/groups.json.

    python benchmarks/groups.py

Trains what build/zoo lacks and proves what build/groups lacks; a network and its bounds are noted as they come.
"""

from pathlib import Path

import torch
from build_zoo import member
from notes import once, publish
from tqdm import tqdm

import mechproof as mp
from mechproof import zoo
from mechproof.proof.family import Model

SEEDS = {"group-s5": 100, "group-s5-decay": 5, "group-s4": 20, "group-a5": 20, "group-d12": 5}
BUILD = Path("build/groups")
# the last is the shortest that certifies 95%, or nearly
STRATEGIES = ("brute_force", "cosets", "directions", "cosets:parts=32,aim=95")


def bound(collection: str, seed: int, strategy: str) -> dict:
    """What a strategy certifies of one network, trained by its recipe."""
    def proved() -> dict:
        _, tensors = member(collection, seed)
        model = Model(f"{collection}/{seed}", zoo.family_of_collection(collection), tensors)
        found = mp.prove(model, strategy)
        return {"model": model.name, "sha256": model.sha256, "strategy": strategy, "correct": found.correct, "total": found.total,
                "flops": found.flops}
    return once(BUILD / f"{collection}.{seed}.{STRATEGIES.index(strategy)}.json", proved)


if __name__ == "__main__":
    torch.set_num_threads(1)
    Path("build/zoo").mkdir(parents=True, exist_ok=True)
    publish("groups", {collection: [bound(collection, seed, strategy) for seed in tqdm(range(n), desc=collection) for strategy in STRATEGIES]
                       for collection, n in SEEDS.items()})
