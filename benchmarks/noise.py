"""What the noise chapter prints of many models: every way of peeling against every null, the ladder, and what replaces the noise.

    python benchmarks/noise.py            writes mechproof/data/results/noise.json, resumably (build/noise/*.json); 45 minutes on one core
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from notes import once, publish
from tqdm import tqdm

import mechproof as mp
from mechproof import zoo
from mechproof.noise import ablation, mlp, residual, surrogate
from mechproof.proof.bound import Bound
from mechproof.proof.peeling import Peeled
from mechproof.proof.product_bounds import RUNGS

NOTES = Path("build/noise")
COLLECTIONS = ("max-of-4", "max-of-4-uniform", "max-of-4-decayed")
RANKS, DRAWS, BLOCKS = (1, 2, 4, 8), 200, 4
LADDER_RANKS, FINE = (1, 4), ("exact", "gram", "per_dimension", "norms")
MLP_COLLECTIONS, MLP_RANKS = ("pizza-113", "pizza-59"), (6, 12)
SLACKS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 6.0)


def compared(model: mp.Model, seed: int) -> dict:
    """The largest row difference against every null, by peel and rank: (real, mean, sd, draws at least as large)."""
    out: dict = {}
    for peel in residual.PEELS:
        for rank in RANKS:
            chain = residual.residual(model, peel, rank).numbers
            for null, draw in surrogate.NULLS.items():
                found = surrogate.against(surrogate.largest, chain, draw(chain, DRAWS, surrogate.generator_of(seed)))
                out.setdefault(peel, {}).setdefault(str(rank), {})[null] = found[:4]
    return out


def rungs_compared(split: Peeled, seed: int) -> dict:
    """Every rung against every null, and the largest row difference within each quarter of the keys against the finest."""
    chain = split.numbers
    draws = {null: draw(chain, DRAWS, surrogate.generator_of(seed)) for null, draw in surrogate.NULLS.items()}
    out = {null: {rung: surrogate.against(surrogate.of_rung(rung), chain, drawn)[:4] for rung in RUNGS
                  if rung not in surrogate.invariant(null, len(chain))} for null, drawn in draws.items()}
    step = chain[-1].shape[1] // BLOCKS
    quarters = [surrogate.against(surrogate.largest_within(step * i, step * (i + 1)), chain, draws["haar"])[:4] for i in range(BLOCKS)]
    return {"rungs": out, "quarters": quarters}


def ladder(model: mp.Model, split: Peeled, rank: int) -> dict:
    """The true row differences, and of every rung its mean bound, what it certifies, and the operations of the scores and of all."""
    def of(rung: str) -> dict:
        bound: Bound = residual.certify(model, rung, "QK", rank)
        return {"bound": float(RUNGS[rung](split.rest).mid.mean()), "correct": bound.correct, "flops": bound.flops,
                "scores": residual.scores_flops(model, rung, "QK", rank)}
    truth = surrogate.ranges([split.noise[None]])
    return {"mean": float(truth.mean()), "max": float(truth.amax()), "rungs": {rung: of(rung) for rung in RUNGS}}


def noised(model: mp.Model, split: Peeled) -> dict:
    """The network with this noise: inputs that are right, and the share that the finer rungs certify."""
    right = ablation.accuracy(model, split.kept.mid + split.noise)
    return {"correct": right.correct, "open": right.open, "certified": {rung: ablation.certified(model, split, rung) for rung in FINE}}


def row(name: str, seed: int) -> dict:
    """One model."""
    model = mp.load(name)
    splits = {rank: residual.residual(model, "QK", rank) for rank in LADDER_RANKS}
    return {"name": name, "total": model.sizes["d_vocab"] ** model.sizes["n_ctx"], "compared": compared(model, seed),
            **rungs_compared(splits[1], seed), "ladder": {str(rank): ladder(model, split, rank) for rank, split in splits.items()},
            "slack": [ablation.under_slack(model, slack) for slack in SLACKS],
            "ablated": {str(rank): {kind: found.correct for kind, found in ablation.ablated(model, split, "haar", seed).items()}
                        for rank, split in splits.items()},
            "noised": {str(rank): {null: noised(model, ablation.redrawn(split, null, seed)) for null in surrogate.NULLS}
                       for rank, split in splits.items()}}


def mlp_row(name: str, seed: int) -> dict:
    """One modular-addition model: its facts, and pairs and operations of every rung, by rank."""
    model = mp.load(name)
    bounds = {rank: {rung: mlp.certify(model, rung, rank) for rung in RUNGS} for rank in MLP_RANKS}
    return {"name": name, "total": model.sizes["p"] ** 2, "ranks": {str(rank): {**mlp.facts(model, rank, seed), "proofs": {
        rung: {"correct": b.correct, "flops": b.flops} for rung, b in found.items()}} for rank, found in bounds.items()}}


def each(collections: Sequence[str], measure: Callable[[str, int], dict]) -> list[dict]:
    """What is measured of every model of some collections, each once."""
    every = [(entry["name"], entry["seed"]) for entry in zoo.models() if entry["collection"] in collections]
    return [once(NOTES / f"{name.replace('/', '.')}.json", partial(measure, name, seed)) for name, seed in tqdm(every, disable=None)]


def main() -> None:
    torch.set_num_threads(1)
    mlps = each(MLP_COLLECTIONS, mlp_row)
    publish("noise", {"command": "python benchmarks/noise.py", "draws": DRAWS, "slacks": SLACKS, "models": each(COLLECTIONS, row), "mlps": mlps})


if __name__ == "__main__":
    main()
