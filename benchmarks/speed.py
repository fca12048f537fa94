"""Speed as ratios within one run, on one thread: exact brute force and all hundred proofs against the plain forward pass.

    python benchmarks/speed.py            # prints, and writes mechproof/data/results/speed.json

"Plain forward" is the model as written, in float32, over all 64^4 inputs in batches of 65 536, last position
only; every figure is the best of three.
"""

import json
import time

import torch
from notes import provenance

import mechproof as mp
from mechproof import zoo
from mechproof.max_of_k import gap_search
from mechproof.max_of_k.brute_force import count_right
from mechproof.max_of_k.model import last_logits

MODEL = "max-of-4-reference/123"


def plain_forward(model: mp.Model) -> None:
    tokens = torch.cartesian_prod(*[torch.arange(model.sizes["d_vocab"])] * model.sizes["n_ctx"])
    assert sum(int((last_logits(model.tensors, t).argmax(-1) == t.amax(-1)).sum()) for t in tokens.split(65_536)) > 0


def hundred(model: mp.Model) -> None:
    gap_search.known_attention.cache_clear()
    gap_search.known_votes.cache_clear()
    for strategy in mp.strategies(model)[2:]:
        mp.prove(model, strategy.id)


def best_of_three(work, *args) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work(*args)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    torch.set_num_threads(1)
    model = mp.load(MODEL)
    mp.prove(model, "cubic")                                   # imports behind the counter, once
    seconds = {work.__name__: best_of_three(work, model) for work in (plain_forward, count_right, hundred)}
    plain = seconds["plain_forward"]
    ratios = {"plain_over_brute_force": plain / seconds["count_right"], "plain_over_hundred_proofs": plain / seconds["hundred"]}
    out = zoo.DATA / "results" / "speed.json"
    out.write_text(json.dumps({**provenance(), "model": MODEL, "seconds": seconds, **ratios}, indent=1) + "\n")
    print(json.dumps(ratios, indent=1))


if __name__ == "__main__":
    main()
