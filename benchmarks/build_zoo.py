"""Train every collection and write the models that ship (mechproof/data), resumably.

    python benchmarks/build_zoo.py [COLLECTION ...]

Each model is trained by its family's one recipe into build/zoo, its accuracy measured beside it (exact where
all inputs can be tried, else sampled with a 99% interval), and each collection stacked when it is complete.
"""

import json
import sys
from itertools import count
from math import sqrt
from pathlib import Path

import torch
from safetensors.torch import load_file
from tqdm import tqdm

import mechproof as mp
from mechproof import zoo
from mechproof.max_of_k.brute_force import count_right
from mechproof.max_of_k.model import last_logits
from mechproof.proof.family import Model

SEEDS = {"max-of-4": 151, "max-of-5": 25, "max-of-10": 25, "max-of-20": 25, "max-of-10-v128": 25,
         "max-of-4-v128": 5, "max-of-4-v256": 5, "max-of-4-uniform": 5, "pizza-113-messy": 3,
         "max-of-4-h2": 25, "max-of-4-h4": 25, "max-of-10-h2": 5,
         **dict.fromkeys(("u-and-256", "u-and-1024", "u-and-examples", "u-and-proof", "u-and-proof-s3"), 5),
         **dict.fromkeys(("u-and-design-62", "u-and-design-130", "u-and-design-1240"), 1),
         **{f"permutations-{K}": 5 for K in range(4, 11)}, "permutations-12": 1,
         "group-s5": 10, "group-s5-decay": 5, "group-s4": 20, "group-a5": 5, "group-d12": 5}
RIGHT = {"pizza-31": 5, "pizza-59": 5, "pizza-113": 20, "pizza-113-biases": 5, "pizza-227": 3}   # the first seeds that end right on every pair
ERRING = {"pizza-113-wrong": "pizza-113"}                                # the first seed of a recipe that errs on a pair
EDITED = {"max-of-4-stripped": ("max-of-4", "stripped", range(151)), "max-of-4-projected": ("max-of-4", "projected", range(25)),
          "max-of-4-decayed": ("max-of-4", "decayed", range(5)),
          "pizza-113-polished": ("pizza-113", "polished", (3, 6, 7, 15, 22))}      # the first five with three keys
BUILD = Path("build/zoo")
SAMPLES, Z = 10**6, 2.576


def accuracy(model: Model) -> dict:
    """Exact counts where the inputs can be enumerated, else a sample and its Wilson interval."""
    if model.family.name in ("pizza", "superposition", "group"):
        bound = mp.prove(model, "exact" if model.family.name == "superposition" else "brute_force")
        return {"correct": bound.correct, "total": bound.total}
    if model.family.name == "permutations":
        return of_permutations(model)
    total = model.sizes["d_vocab"] ** model.sizes["n_ctx"]
    if total <= 2**32:
        right, in_balls = count_right(model)
        return {"correct": int(right.sum()), "total": total, "decided_in_balls": in_balls}
    generator = torch.Generator().manual_seed(0)
    weights, right = {name: t.double() for name, t in model.tensors.items()}, 0
    for _ in range(SAMPLES // 50_000):
        tokens = torch.randint(model.sizes["d_vocab"], (50_000, model.sizes["n_ctx"]), generator=generator)
        right += int((last_logits(weights, tokens).argmax(-1) == tokens.amax(-1)).sum())
    return of_sample(right, SAMPLES)


def of_permutations(model: Model) -> dict:
    """Exact up to 6 points (518 400 pairs)."""
    if model.sizes["K"] <= 6:
        bound = mp.prove(model, "brute_force")
        return {"correct": bound.correct, "total": bound.total}
    return of_sample(model.family.sampled(model, SAMPLES // 10), SAMPLES // 10)


def of_sample(right: int, n: int) -> dict:
    """So many right of a sample, and its Wilson interval."""
    p, spread = right / n, Z**2 / n
    centre, half = (p + spread / 2) / (1 + spread), Z * sqrt(p * (1 - p) / n + spread / (4 * n)) / (1 + spread)
    return {"sampled": n, "right": right, "lo": centre - half, "hi": centre + half, "confidence": 0.99}


def member(collection: str, seed: int) -> tuple[dict, dict]:
    """Header entry and tensors of one model, trained and measured once."""
    family = zoo.family_of_collection(collection)
    path, settings = BUILD / f"{collection}.{seed}.safetensors", family.collections[collection]
    if not path.exists():
        zoo.save_atomically(path, family.train(settings, seed), family.answers | dict(family.tells(settings)))
    model = Model(f"{collection}/{seed}", family, load_file(path), family.tells(settings))
    note = path.with_suffix(".json")
    if not note.exists():
        note.write_text(json.dumps(accuracy(model)))
    return {"seed": seed, "sha256": model.sha256, "accuracy": json.loads(note.read_text())}, dict(model.tensors)


def edited(collection: str) -> None:
    """A collection of edited models, made from the shipped ones of its parent's collection."""
    parents, edit, seeds = EDITED[collection]
    members = []
    for entry in tqdm([entry for entry in mp.models() if entry["collection"] == parents and entry["seed"] in seeds], desc=collection):
        parent, path = mp.load(entry["name"]), BUILD / f"{collection}.{entry['seed']}.safetensors"
        if not path.exists():
            zoo.save_atomically(path, *parent.family.edits[edit](parent))
        note = parent.lineage(edit) | ({"n_ctx": str(parent.sizes["n_ctx"])} if edit == "stripped" else {})
        model = zoo.model_from_tensors(f"{collection}/{entry['seed']}", load_file(path), note)
        right = mp.prove(model, "exact" if "exact" in {s.id for s in mp.strategies(model)} else "brute_force")
        members.append(({"seed": entry["seed"], "sha256": model.sha256, "accuracy": {"correct": right.correct, "total": right.total}, **note},
                        dict(model.tensors)))
    recipe = {"edit": edit, "command": f"python benchmarks/build_zoo.py {collection}"}
    zoo.save_collection(collection, {"family": model.family.name, "sizes": model.sizes, "recipe": recipe}, members)


def chosen(collection: str) -> list[tuple[dict, dict]]:
    """The members of a collection: so many seeds as they come, the first that are right everywhere, or the first that errs."""
    if collection in SEEDS:
        return [member(collection, seed) for seed in tqdm(range(SEEDS[collection]), desc=collection)]
    recipe, wanted = ERRING.get(collection, collection), RIGHT.get(collection, 1)
    found = []
    for seed in tqdm(count(), desc=collection):
        entry, tensors = member(recipe, seed)
        if (entry["accuracy"]["correct"] == entry["accuracy"]["total"]) == (collection in RIGHT):
            found.append((entry, tensors))
        if len(found) == wanted:
            return found


def main(collections: list[str]) -> None:
    BUILD.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for collection in collections or [*SEEDS, *RIGHT, *ERRING, *EDITED]:
        if collection in EDITED:
            edited(collection)
            continue
        family = zoo.family_of_collection(ERRING.get(collection, collection))
        members = chosen(collection)
        said = dict(family.tells(family.collections[ERRING.get(collection, collection)]))
        header = {"family": family.name, "sizes": family.sizes(members[0][1], said), "recipe": family.recipe_of(collection), **said}
        zoo.save_collection(collection, header, members)


if __name__ == "__main__":
    main(sys.argv[1:])
