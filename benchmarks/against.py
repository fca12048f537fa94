"""What a change costs: checks of this tree against those of a commit, turn by turn in one run.

    python benchmarks/against.py COMMIT [NAME]      prints operations and seconds as ratios; writes them to results/NAME.json if that is given

Each side is a process of its own with one thread, which searches once and then checks when asked; the ratio of seconds is the median over
turns of one check on either side, so that what else the machine does meets both.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT, TURNS = Path(__file__).parents[1], 25
CHECKS = [("max-of-4/0", s) for s in ("cubic", "exact", "separable", "separable-grouped", "separable-small", "compact-gram",
                                      "compact-spectral", "compact-frobenius", "monte_carlo", "EUPU-max-diff--attn-mean-query+diff--attn-err-svd")]
CHECKS += [("max-of-4/17", "exact"), ("max-of-4-stripped/0", "separable"), ("max-of-20/0", "separable-grouped")]
CHECKS += [("pizza-113/3", s) for s in ("wheel", "exact_activations", "moments", "brute_force")]
SIDE = """
import json, sys, time
import mechproof as mp
import torch
torch.set_num_threads(1)
model, strategy = sys.argv[1:]
model = mp.load(model)
advice = mp.search(model, strategy)
print("ready", flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    bound = mp.check(model, strategy, advice)
    print(json.dumps([time.perf_counter() - start, bound.flops, str(bound.correct)]), flush=True)
"""


def side(root: Path, check: tuple[str, str]) -> subprocess.Popen:
    """A process that checks with the library of one tree, whenever it gets a line."""
    process = subprocess.Popen([sys.executable, "-c", SIDE, *check], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root,
                               env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"})
    assert process.stdout.readline() == "ready\n"
    return process


def ask(process: subprocess.Popen) -> list:
    process.stdin.write("\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def compared(check: tuple[str, str], before: Path) -> dict:
    """Ratios of this tree to the other."""
    sides = [side(root, check) for root in (before, ROOT)]
    (_, old, was), (_, new, is_) = (ask(process) for process in sides)
    ratios = []
    for i in range(TURNS):
        found = {j: ask(sides[j]) for j in ((0, 1) if i % 2 else (1, 0))}
        ratios.append(found[1][0] / found[0][0])
    for process in sides:
        process.stdin.close()
        process.wait()
    return {"model": check[0], "strategy": check[1], "operations": new / old, "seconds": median(ratios), "same_count": was == is_}


def main(commit: str, name: str | None = None) -> None:
    from notes import publish
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "before"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", before, commit], cwd=ROOT, check=True)
        try:
            rows = []
            for check in CHECKS:
                rows.append(compared(check, before))
                line = "{model:22s} {strategy:52s} operations x{operations:.4f}  seconds x{seconds:.3f}  same count: {same_count}"
                print(line.format(**rows[-1]), flush=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", before], cwd=ROOT, check=True)
    if name:
        publish(name, {"against": commit, "turns": TURNS, "rows": rows})


if __name__ == "__main__":
    main(*sys.argv[1:])
