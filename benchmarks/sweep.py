"""The tables of bounds that ship: every strategy of moderate cost on every model of every collection.

    python benchmarks/sweep.py [COLLECTION ...]       # about an hour on two cores; resumes where it stopped

Writes to mechproof/data/results: <collection>.parquet, the advice of 50 rows drawn from all of them (sample.*), the data card
(README.md), the ratios of singular values that a figure of chapter one needs, and, if all of Max-of-4 was made anew, how long that took
against the plain forward pass (sweep.json).
"""

import gzip
import hashlib
import os
import random
import sys
import time
from functools import partial
from statistics import median

import torch
from notes import RESULTS, provenance, publish
from safetensors.torch import save
from speed import MODEL, best_of_three, plain_forward
from tqdm import tqdm

import mechproof as mp
from mechproof import zoo
from mechproof.max_of_k.paths import paths_of
from mechproof.zoo import sweep, tables

LONG, WIDE = "separable:groups=12,buckets=12", "separable:groups=24,buckets=16"
BESIDES = {"max-of-5": LONG, "max-of-10": LONG, "max-of-20": LONG, "max-of-10-v128": WIDE, "max-of-4-v128": WIDE, "max-of-4-v256": WIDE,
            "tasks-brackets": "brute_force"}
SAMPLE, SEED = 50, 0
TIMED = "max-of-4"


def collections() -> list[str]:
    """Every collection that ships, the timed one first."""
    return sorted({entry["collection"] for entry in zoo.models()}, key=lambda name: (name != TIMED, name))


def make(collection: str) -> tuple[list[tables.Row], float]:
    """The rows that the table of one collection lacked, and how long it took."""
    start = time.perf_counter()
    wanted = sweep.tasks(sweep.members(collection), ["all", BESIDES[collection]] if collection in BESIDES else ["all"])
    path, progress = RESULTS / f"{collection}.parquet", partial(tqdm, desc=collection, unit="proof")
    made = sweep.sweep(wanted, path, partial(sweep.locally, workers=os.cpu_count()), progress)
    seconds, rows = time.perf_counter() - start, tables.read(path)
    if any(row["version"] != mp.__version__ for row in rows):
        tables.write(path, [row for row in rows if row["version"] == mp.__version__])
    return made, seconds


def timed() -> None:
    """Time of a whole sweep and of a row against the plain forward pass of one model on one thread; and of asking for it again."""
    (rows, wall), (_, again) = make(TIMED), make(TIMED)
    found = against_plain(rows, wall) if {row["model"] for row in rows} == set(sweep.members(TIMED)) else zoo.results("sweep")
    publish("sweep", found | {"again_seconds": again, "whole_over_again": found["wall_seconds"] / again})


def against_plain(rows: list[tables.Row], wall: float) -> dict:
    """What a sweep that was made whole says of time; after a resumed one the last such note stands."""
    torch.set_num_threads(1)
    plain = best_of_three(plain_forward, mp.load(MODEL))
    spent = [row["seconds"] + row["search_seconds"] for row in rows]
    return {**provenance(), "rows": len(rows), "workers": os.cpu_count(), "wall_seconds": wall, "plain_forward_seconds": plain,
            "plain_over_median_row": plain / median(spent), "plain_over_longest_row": plain / max(spent), "wall_over_plain": wall / plain}


def ratios() -> dict[str, float]:
    """sigma_1 / sigma_2 of the table of scores, by model of Max-of-4."""
    found = {}
    for name in sweep.members(TIMED):
        sigma = torch.linalg.svdvals(paths_of(mp.load(name)).A.mid)
        found[name] = float(sigma[0] / sigma[1].clamp_min(1e-300))
    return found


def sample() -> None:
    """The advice of some rows, drawn with the same weight from each collection; as small a kind of number as holds it."""
    every, draw = {name: tables.read(RESULTS / f"{name}.parquet") for name in sorted(collections())}, random.Random(SEED)
    rows, tensors = [draw.choice(every[draw.choice(list(every))]) for _ in range(SAMPLE)], {}
    for i, row in enumerate(rows):
        model = mp.load(row["model"])
        for name, tensor in mp.search(model, row["strategy"]).items():
            small = next((kind for kind in (torch.uint8, torch.int16, torch.int32) if not tensor.is_floating_point()
                          and bool((tensor.to(kind).to(tensor.dtype) == tensor).all())), tensor.dtype)
            tensors[f"{i}/{name}"] = tensor.to(small, copy=True).contiguous()          # no memory shared between entries
        advice = {name.partition("/")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"{i}/")}
        assert mp.check(model, row["strategy"], advice).correct == row["correct"], row
    with zoo.whole(RESULTS / "sample.safetensors.gz") as part:
        part.write_bytes(gzip.compress(save(tensors), mtime=0))
    publish("sample", {"seed": SEED, "rows": [[row["model"], row["strategy"]] for row in rows]})


PURPOSE = {"max-of-4": "the paper's setting: chapters one and three, the chapter past the paper, the reproduction",
           "max-of-4-reference": "one network, trained with the authors' code, on which their verifier was run",
           "max-of-4-stripped": "each of max-of-4 without what a proof need not know: what the structure alone does",
           "max-of-4-projected": "25 of max-of-4 with low-rank products: no noise, nothing left to peel",
           "max-of-4-decayed": "five of max-of-4 trained on with weight decay: whether noise can be trained away",
           "max-of-4-uniform": "trained with every maximum equally often",
           "max-of-5": "longer sequences", "max-of-10": "longer sequences", "max-of-20": "longer sequences, too many to list combinations",
           "max-of-4-v128": "a larger vocabulary", "max-of-4-v256": "a larger vocabulary",
           "max-of-10-v128": "longer sequences of a larger vocabulary",
           "max-of-4-h2": "two heads of half the width each", "max-of-4-h4": "four heads of a quarter of the width each",
           "max-of-10-h2": "two heads and longer sequences",
           "max-of-4-ln": "layer norm before the attention and before the unembedding", "max-of-5-sign": "a closing = sign, and an output for it",
           "max-of-4-biases": "biases of every kind, trained", "min-of-4": "the smallest token (tokens counted from the top), with biases",
           "tasks-sorted": "another task: is the sequence sorted?", "tasks-second-largest": "another task: the second largest token",
           "tasks-brackets": "another task, two layers: are the brackets balanced?",
           "tasks-induction": "another task, two layers: what followed the last token before?",
           "tasks-addition": "another task: addition with learned attention",
           **{f"permutations-{K}": f"composing permutations of {K} points" for K in (4, 5, 6, 7, 8, 9, 10, 12)},
           "group-s5": "composition in S5, elements by number: the published bar", "group-s5-decay": "the same with plain weight decay",
           "group-s4": "composition in S4", "group-a5": "composition in A5", "group-d12": "composition in D12",
           "pizza-113": "chapter two, and the MLP of chapter three", "pizza-31": "a smaller modulus", "pizza-59": "a smaller modulus",
           "pizza-227": "a larger modulus: what grows how fast", "pizza-113-biases": "neurons with biases",
           "pizza-113-messy": "trained at a learning rate that does not fall: no clean keys to find",
           "pizza-113-wrong": "one network that errs: a certificate must not reach 100%",
           "u-and-256": "all ANDs of 32 features from random neurons: too few of them", "u-and-1024": "the same, at the brink",
           "u-and-design-62": "neurons by a Hadamard 3-design: right wherever two are on",
           "u-and-design-130": "neurons by an inversive plane, three on", "u-and-design-1240": "neurons by quadruples, four on",
           "u-and-examples": "ANDs trained on examples: right or nearly, and nobody knows why", "u-and-proof": "ANDs trained against their proof",
           "u-and-proof-s3": "the same, three on",
           "pizza-113-polished": "five of pizza-113 trained on, three keys each: what noise costs a proof"}

CARD = """# Bounds on every shipped model

One table a collection (Parquet, zstd), one row a model and a strategy. Made by `python benchmarks/sweep.py`, which is
`python -m mechproof sweep COLLECTION --strategies all` for each collection, one more setting of the separable proof where sequences are long or
vocabularies large, and this card. `all` means the listed strategies predicted to cost at most 2e10 operations.

| column | unit | meaning |
|---|---|---|
| model | | shipped name, collection/seed |
| sha256 | | hash of all that a bound depends on: the model's tensors and, of a stripped one, n_ctx |
| strategy | | full id, with every parameter that is not at its default |
| version | | of the library that made the row |
| accuracy_lower_bound | share | the largest float that is at most correct / total |
| correct, total | inputs | certified right, of how many; decimals, exact (64^20 is beyond 64 bits) |
| flops | operations | what the check did, by the rules of `mechproof/proof/cost.py` |
| unexplained_dimensions | numbers | the paper's estimate; empty where it gives no formula |
| failure_probability | | over the coins of the check; 0 for a check that draws none |
| advice_bytes | bytes | of the advice, as 64-bit numbers |
| seconds, search_seconds | s | of check and search on one thread of the machine below; the only columns that differ from run to run |
| right, tried | inputs | the truth, by trying: right of how many tried. All inputs where tried = total, else a uniform sample |
| error | | why a row could not be made; empty here |

`sample.json` names {sample} rows, drawn by Python's `random.Random({seed})`, and `sample.safetensors.gz` holds their advice, for whoever
wants to check without searching. The tests hold every bound against the truth columns (or the upper end of their interval at 1 - 1e-6) and
make those {sample} rows again.

| file | models | rows | sha256 of the file |
|---|---|---|---|
{files}

# The weights

One collection each, stacked over seeds in files of less than 8 MiB (`mechproof/data`); made by `python benchmarks/build_zoo.py COLLECTION`
or `train_tasks.py` (`max-of-4-reference` came as it is).

| collection | models | MB | what for |
|---|---|---|---|
{weights}

`max-of-4-reference.csv` is what the authors' verifier says of that model, which no command here makes. The other files are measurements that
pages print from, made by the script of `benchmarks/` that has their name; `sample`, `singular_ratios` by `sweep.py`, `guards` by `against.py`.

Licence: MIT, as the library. Machine: {machine}.
"""


def card() -> None:
    """The data card, with the hash of each table."""
    files = []
    for name in sorted(collections()):
        path = RESULTS / f"{name}.parquet"
        rows = tables.read(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append(f"| {path.name} | {len({row['model'] for row in rows})} | {len(rows)} | `{digest}` |")
    weights = []
    for name in sorted(collections()):
        size = sum(path.stat().st_size for path in zoo.DATA.glob(f"{name}.[0-9]*.safetensors")) / 1e6
        weights.append(f"| {name} | {len(sweep.members(name))} | {size:.1f} | {PURPOSE[name]} |")
    machine = f"{os.cpu_count()} cores, {os.uname().machine}, torch {torch.__version__}"
    with zoo.whole(RESULTS / "README.md") as part:
        part.write_text(CARD.format(sample=SAMPLE, seed=SEED, files="\n".join(files), weights="\n".join(weights), machine=machine))


if __name__ == "__main__":
    for chosen in sys.argv[1:] or collections():
        timed() if chosen == TIMED else make(chosen)
    if not sys.argv[1:]:
        publish("singular_ratios", ratios())
        sample()
        card()
