"""Margins of every shipped network that composes permutations, and what the penalty on weights does to proofs.

    python benchmarks/permutations.py        # about ten minutes on one core; resumes where it stopped

Writes mechproof/data/results/permutations.json: for each model the certified margins of both proofs, the least margin of all inputs (up to
six points) or of a sample; and the same of networks of four points trained with other penalties.
"""

from itertools import product
from math import factorial
from pathlib import Path

import torch
from notes import once, publish
from tqdm import tqdm

import mechproof as mp
from mechproof import zoo
from mechproof.permutations import model as network
from mechproof.permutations import proof, search
from mechproof.permutations.train import recipe, train

BUILD = Path("build/permutations")
SAMPLE, LARGEST = 20_000, 6                                              # inputs; points of which every input is run
PENALTIES, SEEDS = (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3), range(3)


def least_margin(model: mp.Model) -> float:
    """Over all inputs, x by x, or over the sample."""
    K = model.sizes["K"]
    if K > LARGEST:
        return float(network.sampled_margins(model.tensors, SAMPLE).min())
    every = network.every(K)
    return min(float(network.margins(model.tensors, x.expand_as(every), every).min()) for x in every)


def measured(model: mp.Model) -> dict:
    """Margins and counts of both proofs, and how many neurons write anything."""
    K, advice, found = model.sizes["K"], search.lines(model, {}), {"total": factorial(model.sizes["K"]) ** 2}
    for name in ("cells", "rivals"):
        bound = mp.check(model, name, advice)
        found[name] = {"margin": proof.least(proof.leads(model, advice, getattr(proof, name))), "correct": bound.correct,
                       "flops": bound.flops, "seconds": bound.seconds}
    return found | {"K": K, "n": model.sizes["d_mlp"], "alive": int((model["W_U"] != 0).any(2).any(1).sum()),
                    "inputs": found["total"] if K <= LARGEST else SAMPLE, "margin": least_margin(model)}


def with_penalty(l1: float, seed: int) -> dict:
    model = zoo.model_from_tensors("m", train({"K": 4, "l1": l1}, seed))
    return {"l1": l1, "seed": seed, **measured(model)}


def main() -> None:
    torch.set_num_threads(1)
    names = [entry["name"] for entry in mp.models() if entry["family"] == "permutations"]
    shipped = [{"name": name, "seed": int(name.rpartition("/")[2]), **measured(mp.load(name))} for name in tqdm(names, desc="shipped")]
    found = [once(BUILD / f"{l1}-{seed}.json", lambda: with_penalty(l1, seed))
             for l1, seed in tqdm(list(product(PENALTIES, SEEDS)), desc="penalties")]
    publish("permutations", {"command": "python benchmarks/permutations.py", "recipe_l1": recipe({"K": 4})["l1"], "models": shipped,
                             "penalties": found})


if __name__ == "__main__":
    main()
