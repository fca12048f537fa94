"""What the pizza chapter prints of many models: how they are read, what each strategy certifies, how it scales.

    python benchmarks/pizza.py            writes mechproof/data/results/pizza.json, resumably (build/pizza/*.json)

Every model trained so far in build/zoo is measured, shipped or not; the history of one training run is kept at 20 steps.
"""

import json
import re
import statistics
from datetime import date
from pathlib import Path

import torch
from tqdm import tqdm

import mechproof as mp
from mechproof import zoo
from mechproof.family import Model
from mechproof.pizza import amplitude, fourier, quadrature
from mechproof.pizza.family import COLLECTIONS
from mechproof.pizza.train import train

BUILD, NOTES = Path("build/zoo"), Path("build/pizza")
WAYS = ("brute_force", "wheel", "wheel-short", "exact_activations", "paper", "moments", "moments_exact_neurons")
HISTORY, MARKS = ("pizza-113", 3), 20


def reading(model: Model) -> dict:
    """Keys, t, floors, R^2 of the three forms, and the paper's budget weighted by M."""
    measured, found = amplitude.measure(model)
    forms = amplitude.explained(measured, found)
    budgets = [quadrature.budget(model, k) for k in measured.keys]
    total = sum(b["M"] for b in budgets)
    neurons = fourier.read(fourier.tables(model))
    weight = neurons.r * neurons.omega
    gap = torch.angle(torch.exp(1j * (neurons.psi - 2 * neurons.phi))).abs()
    return {"keys": measured.keys, "R": measured.R.tolist(), "t_own": measured.t.tolist(), "t_fit": forms["t"],
            "floor": (measured.A.amin(1) / measured.A.amax(1)).tolist(), "phase_gap": float((gap * weight).sum() / weight.sum()),
            "r2": {name: forms[name] for name in ("pizza", "flattest", "fitted")},
            "budget": {name: sum(b[name] * b["M"] for b in budgets) / total for name in budgets[0] if name != "M"}}


def row(path: Path) -> dict:
    """One model: name, sizes, reading, and what each strategy certifies in how many operations and seconds."""
    model = mp.load(path)
    proofs = {}
    for id in WAYS:
        bound = mp.prove(model, id)
        proofs[id] = {"correct": bound.correct, "total": bound.total, "flops": bound.flops, "seconds": round(bound.seconds, 3)}
    return {"collection": path.name.split(".")[0], "seed": int(path.name.split(".")[1]), "sizes": model.sizes, **reading(model), "proofs": proofs}


def history(collection: str, seed: int) -> list[dict]:
    """What is seen of one run at `MARKS` steps: wrong pairs, t, phases, floor."""
    settings, notes = COLLECTIONS[collection], []
    steps = 2500
    def watch(step: int, weights) -> None:
        if step % (steps // MARKS) or not step:
            return
        model = zoo.model_from_tensors("now", {name: tensor.detach().clone() for name, tensor in weights.items()})
        measured, found = amplitude.measure(model)
        p = found.shape[1]
        at = amplitude.pairs(p)
        right = found.argmax(2) == (at.a + at.b) % p
        neurons = fourier.read(fourier.tables(model))
        gap = torch.angle(torch.exp(1j * (neurons.psi - 2 * neurons.phi))).abs()
        weight = neurons.r * neurons.omega
        notes.append({"step": step, "wrong": int((~right).sum()), "t": float((measured.t * measured.R).sum() / measured.R.sum()),
                      "phase_gap": float((gap * weight).sum() / weight.sum()),
                      "floor": float(((measured.A.amin(1) / measured.A.amax(1)) * measured.R).sum() / measured.R.sum())})
    train(settings, seed, progress=tqdm, watch=watch)
    return notes


def kept(path: Path, make) -> dict | list:
    """The note in this file, made once."""
    if not path.exists():
        path.write_text(json.dumps(make()))
    return json.loads(path.read_text())


def main() -> None:
    torch.set_num_threads(1)
    NOTES.mkdir(parents=True, exist_ok=True)
    paths = [p for p in BUILD.glob("pizza-*.safetensors") if re.fullmatch(r"pizza-[0-9a-z-]+\.\d+\.safetensors", p.name)]
    paths.sort(key=lambda p: (p.name.split(".")[0], int(p.name.split(".")[1])))
    rows = [kept(NOTES / f"{path.stem}.json", lambda path=path: row(path)) for path in tqdm(paths)]
    past = kept(NOTES / "history.json", lambda: history(*HISTORY))
    out = {"made": str(date.today()), "command": "python benchmarks/pizza.py", "models": rows, "history": past,
           "machine": "2 cores, one thread", "median_seconds": {id: statistics.median(r["proofs"][id]["seconds"] for r in rows) for id in WAYS}}
    (zoo.DATA / "results" / "pizza.json").write_text(json.dumps(out))


if __name__ == "__main__":
    main()
