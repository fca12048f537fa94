"""What the pizza chapter prints of many models: how they are read, what each strategy certifies, how it scales.

    python benchmarks/pizza.py            writes mechproof/data/results/pizza.json, resumably (build/pizza/*.json)

More models than ship: those of `SEEDS` and `POLISHED` are trained where build/zoo lacks them (some hours on one core), and the
history of one run is kept at 20 steps.
"""

from pathlib import Path
from statistics import median

import torch
from build_zoo import BUILD, member
from notes import once, publish
from safetensors.torch import load_file
from tqdm import tqdm

import mechproof as mp
from mechproof import zoo
from mechproof.pizza import amplitude, fourier, quadrature
from mechproof.pizza.family import COLLECTIONS
from mechproof.pizza.train import RECIPE, polished, train
from mechproof.proof.family import Model

NOTES = Path("build/pizza")
WAYS = ("brute_force", "wheel", "wheel-short", "exact_activations", "paper", "moments", "moments_exact_neurons")
SEEDS = {"pizza-31": 13, "pizza-59": 10, "pizza-113": 67, "pizza-113-biases": 8, "pizza-113-messy": 3, "pizza-227": 3,
         "pizza-31-wd1": 5, "pizza-59-wd1": 5, "pizza-59-wd05": 3}
POLISHED = (0, 1, 2, 3, 4, 6, 7, 15, 22)                                 # seeds of pizza-113
HISTORY, MARKS = ("pizza-113", 3), 20


def model_of(collection: str, seed: int) -> Model:
    """A model of a collection, trained if need be, or polished."""
    if collection != "pizza-113-polished":
        return zoo.model_from_tensors(f"{collection}/{seed}", member(collection, seed)[1])
    path = BUILD / f"{collection}.{seed}.safetensors"
    if not path.exists():
        zoo.save_atomically(path, *polished(model_of("pizza-113", seed)))
    return zoo.model_from_tensors(f"{collection}/{seed}", load_file(path))


def reading(model: Model) -> dict:
    """Keys, t, floors, R^2 of the three forms, and the paper's budget weighted by M."""
    measured, found = amplitude.measure(model)
    forms = amplitude.explained(measured, found)
    budgets = [quadrature.budget(model, k) for k in measured.keys]
    total = sum(b["M"] for b in budgets)
    return {"keys": measured.keys, "R": measured.R.tolist(), "t_own": measured.t.tolist(), "t_fit": forms["t"],
            "floor": (measured.A.amin(1) / measured.A.amax(1)).tolist(), "phase_gap": fourier.phase_gap(fourier.read(fourier.tables(model))),
            "r2": {name: forms[name] for name in ("pizza", "flattest", "fitted")},
            "budget": {name: sum(b[name] * b["M"] for b in budgets) / total for name in budgets[0] if name != "M"}}


def row(collection: str, seed: int) -> dict:
    """One model: name, sizes, reading, and what each strategy certifies in how many operations and seconds."""
    model, proofs = model_of(collection, seed), {}
    for id in WAYS:
        bound = mp.prove(model, id)
        proofs[id] = {"correct": bound.correct, "total": bound.total, "flops": bound.flops, "seconds": round(bound.seconds, 3)}
    return {"collection": collection, "seed": seed, "sizes": model.sizes, **reading(model), "proofs": proofs}


def history(collection: str, seed: int) -> list[dict]:
    """What is seen of one run at `MARKS` steps: wrong pairs, t, phases, floor."""
    notes = []
    def watch(step: int, weights) -> None:
        if step % (RECIPE["steps"] // MARKS) or not step:
            return
        model = zoo.model_from_tensors("now", {name: tensor.detach().clone() for name, tensor in weights.items()})
        measured, found = amplitude.measure(model)
        right = found.argmax(2) == amplitude.pairs(found.shape[1]).answer
        mean = lambda x: float((x * measured.R).sum() / measured.R.sum())
        notes.append({"step": step, "wrong": int((~right).sum()), "t": mean(measured.t), "floor": mean(measured.A.amin(1) / measured.A.amax(1)),
                      "phase_gap": fourier.phase_gap(fourier.read(fourier.tables(model)))})
    train(COLLECTIONS[collection], seed, progress=tqdm, watch=watch)
    return notes


def main() -> None:
    torch.set_num_threads(1)
    BUILD.mkdir(parents=True, exist_ok=True)
    every = [(collection, seed) for collection, n in SEEDS.items() for seed in range(n)] + [("pizza-113-polished", seed) for seed in POLISHED]
    rows = [once(NOTES / f"{c}.{s}.json", lambda c=c, s=s: row(c, s)) for c, s in tqdm(every)]
    publish("pizza", {"command": "python benchmarks/pizza.py", "models": rows,
                      "history": once(NOTES / "history.json", lambda: history(*HISTORY)),
                      "median_seconds": {id: median(r["proofs"][id]["seconds"] for r in rows) for id in WAYS}})


if __name__ == "__main__":
    main()
