"""Each strategy's operations at d_vocab = 16, 32, 64, 128, with the fitted exponent beside the stated complexity.

    python benchmarks/counting.py         # prints, and writes mechproof/data/results/counting.json

Max-of-4 models by the usual recipe; those at 64 and 128 are shipped, the two small ones are trained on the spot.
"""

import json
from math import log2

import torch
from notes import RESULTS, provenance
from tqdm import tqdm

import mechproof as mp
from mechproof import zoo

SIZES = (16, 32, 64, 128)


def models() -> list[mp.Model]:
    """One model a size, its sizes read off the tensors."""
    train = zoo.family_of_collection("max-of-4").train
    small = [zoo.model_from_tensors(f"v{v}", train({"n_ctx": 4, "d_vocab": v}, 0)) for v in SIZES[:2]]
    return [*small, mp.load("max-of-4/0"), mp.load("max-of-4-v128/0")]


def main() -> None:
    torch.set_num_threads(1)
    rows, by_size = {}, models()
    for preset in tqdm(mp.strategies(by_size[0]), disable=None):
        sizes = by_size[:3] if preset.id == "brute_force" else by_size
        flops = [mp.prove(model, preset.id).flops for model in sizes]
        rows[preset.id] = {"complexity": preset.complexity, "flops": flops, "exponents": [log2(b / a) for a, b in zip(flops, flops[1:])]}
        print(f"{preset.id}: {preset.complexity}; {flops}; last doubling {rows[preset.id]['exponents'][-1]:.2f}")
    part = RESULTS / "counting.part"
    part.write_text(json.dumps({**provenance(), "sizes": SIZES, "strategies": rows}))
    part.replace(RESULTS / "counting.json")


if __name__ == "__main__":
    main()
