"""Train the networks that are no plain Max-of-K (mechproof/data: tasks-*, *-ln, *-sign, *-biases, min-*), resumably.

    python benchmarks/train_tasks.py [COLLECTION ...]

AdamW as in the recipe of Max-of-K, the learning rate falling to nothing. One network a task, five of each kind of Max-of-K; some twenty minutes on
one core, and the counts.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm

import mechproof as mp
from mechproof import zoo
from mechproof.proof.family import one_thread

BUILD = Path("build/zoo")
BATCH = 512


class Task(NamedTuple):
    """Inputs are all sequences of `length` tokens below `tokens` (and an = sign at the end, if so); one answer each."""

    tokens: int
    length: int
    outputs: int
    answer: Callable[[Tensor], Tensor]
    layers: int
    heads: int
    d_mlp: int
    steps: int
    sign: bool = False
    weight_decay: float = 0.01
    norm: bool = False              # LN before the attention and before the unembedding
    biases: bool = False
    seeds: int = 1
    named: str = "table"            # the task; a table of answers, if it has no name

    @property
    def few(self) -> bool:
        """Whether all inputs are held at once."""
        return self.tokens**self.length <= 2**20


def largest(t: Tensor) -> Tensor:
    return t.amax(1)


def smallest(t: Tensor) -> Tensor:
    return t.amin(1)


def sorted_or_not(t: Tensor) -> Tensor:
    return (t[:, 1:] >= t[:, :-1]).all(1).long()


def second_largest(t: Tensor) -> Tensor:
    return t.sort(1).values[:, -2]


def balanced(t: Tensor) -> Tensor:
    """0 opens and 1 closes."""
    height = (1 - 2 * t).cumsum(1)
    return ((height >= 0).all(1) & (height[:, -1] == 0)).long()


def after_the_last_time(t: Tensor) -> Tensor:
    """What followed the last token when it stood there before, most recently; itself, if it never did."""
    found = t[:, -1]
    for p in range(t.shape[1] - 1):
        found = torch.where(t[:, p] == t[:, -1], t[:, p + 1], found)
    return found


TASKS = {
    "tasks-sorted": Task(16, 4, 2, sorted_or_not, 1, 2, 64, 8000),
    "tasks-second-largest": Task(16, 4, 16, second_largest, 1, 4, 64, 12000),
    "tasks-brackets": Task(2, 16, 2, balanced, 2, 2, 64, 3000),
    "tasks-induction": Task(7, 6, 7, after_the_last_time, 2, 2, 0, 12000),
    "tasks-addition": Task(31, 2, 31, lambda t: t.sum(1) % 31, 1, 4, 128, 20000, True, 1.0, named="sum"),
    "max-of-4-ln": Task(64, 4, 64, largest, 1, 1, 0, 4000, norm=True, biases=True, seeds=5, named="max"),
    "max-of-5-sign": Task(64, 4, 65, largest, 1, 1, 0, 4000, True, seeds=5, named="max"),
    "max-of-4-biases": Task(64, 4, 64, largest, 1, 1, 0, 4000, biases=True, seeds=5, named="max"),
    "min-of-4": Task(64, 4, 64, smallest, 1, 1, 0, 4000, biases=True, seeds=5, named="min"),
}


def every_input(task: Task) -> Tensor:
    n = torch.arange(task.tokens**task.length)
    return torch.stack([n // task.tokens**i % task.tokens for i in reversed(range(task.length))], 1)


def start(task: Task, g: torch.Generator, d: int = 32) -> dict[str, Tensor]:
    """Random weights under TransformerLens' names."""
    k, n = d // task.heads, task.length + task.sign
    shapes = {"embed.W_E": (task.tokens + task.sign, d), "pos_embed.W_pos": (n, d), "unembed.W_U": (d, task.outputs)}
    for i in range(task.layers):
        shapes |= {f"blocks.{i}.attn.W_{side}": (task.heads, d, k) for side in "QKV"} | {f"blocks.{i}.attn.W_O": (task.heads, k, d)}
        if task.d_mlp:
            shapes |= {f"blocks.{i}.mlp.W_in": (d, task.d_mlp), f"blocks.{i}.mlp.W_out": (task.d_mlp, d)}
    weights = {name: torch.randn(shape, generator=g) * 0.8 / d**0.5 for name, shape in shapes.items()}
    if task.norm:
        weights |= {f"{ln}.{part}": torch.full((d,), float(part == "w")) for ln in ("blocks.0.ln1", "ln_final") for part in "wb"}
    if task.biases:
        weights |= {f"blocks.0.attn.b_{side}": torch.zeros(task.heads, k) for side in "QV"} | {"blocks.0.attn.b_O": torch.zeros(d)}
    biases = {f"blocks.{i}.mlp.b_in": torch.zeros(task.d_mlp) for i in range(task.layers if task.d_mlp else 0)}
    return weights | biases | {"unembed.b_U": torch.zeros(task.outputs)}


def norm(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x if f"{name}.w" not in w else torch.nn.functional.layer_norm(x, x.shape[-1:], w[f"{name}.w"], w[f"{name}.b"])


def logits(w: dict[str, Tensor], task: Task, t: Tensor) -> Tensor:
    """At the last position; causal, ReLU."""
    if task.sign:
        t = torch.cat([t, torch.full_like(t[:, :1], task.tokens)], 1)
    x = w["embed.W_E"][t] + w["pos_embed.W_pos"]
    hidden = torch.ones(t.shape[1], t.shape[1]).triu(1).bool()
    for i in range(task.layers):
        heard, bias = norm(w, f"blocks.{i}.ln1", x), lambda side, i=i: w.get(f"blocks.{i}.attn.b_{side}", torch.zeros(1, 1))[:, None]
        q, k, v = (torch.einsum("bnd,hdk->bhnk", heard, w[f"blocks.{i}.attn.W_{side}"]) + bias(side) for side in "QKV")
        pattern = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(hidden, -torch.inf).softmax(-1)
        x = x + torch.einsum("bhnk,hkd->bnd", pattern @ v, w[f"blocks.{i}.attn.W_O"]) + w.get(f"blocks.{i}.attn.b_O", 0)
        if task.d_mlp:
            inside = (x @ w[f"blocks.{i}.mlp.W_in"] + w[f"blocks.{i}.mlp.b_in"]).relu()
            x = x + inside @ w[f"blocks.{i}.mlp.W_out"]
    return norm(w, "ln_final", x[:, -1]) @ w["unembed.W_U"] + w["unembed.b_U"]


def batches(task: Task, g: torch.Generator) -> Iterator[Tensor]:
    """What to train on: rare answers as often as others where all inputs are held, all of them where they are few; else any."""
    if not task.few:
        yield from (torch.randint(task.tokens, (BATCH, task.length), generator=g) for _ in range(task.steps))
        return
    inputs = every_input(task)
    answers = task.answer(inputs)
    share = 1.0 / answers.bincount(minlength=task.outputs)[answers].double()
    draws = torch.multinomial(share, BATCH * task.steps, replacement=True, generator=g).split(BATCH)
    yield from (inputs[draw] if len(inputs) > BATCH * 2 else inputs for draw in draws)


def train(name: str, task: Task, seed: int = 0) -> dict[str, Tensor]:
    """The weights after all steps."""
    g = torch.Generator().manual_seed(seed)
    weights = {key: x.requires_grad_() for key, x in start(task, g).items()}
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-3, weight_decay=task.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / task.steps)
    with one_thread():
        for inputs in tqdm(batches(task, g), desc=f"{name}/{seed}", total=task.steps):
            loss = cross_entropy(logits(weights, task, inputs).double(), task.answer(inputs))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return {key: x.detach() for key, x in weights.items()}


def said(task: Task) -> dict[str, str]:
    """What the tensors do not say."""
    found = {"normalization_type": "LN" if task.norm else "none", "attention_dir": "causal", "task": task.named, "act_fn": "relu",
             "inputs": "? " * task.length + (str(task.tokens) if task.sign else "")}
    return {key: value.strip() for key, value in found.items() if task.d_mlp or key != "act_fn"}


def member(name: str, task: Task, seed: int) -> mp.Model:
    path = BUILD / f"{name}.{seed}.safetensors"
    if not path.exists():
        zoo.save_atomically(path, train(name, task, seed), {})
    tensors = load_file(path)
    if task.named == "table":
        tensors["answers"] = task.answer(every_input(task)).float()
    return mp.load(tensors, **said(task))


def main(names: list[str]) -> None:
    BUILD.mkdir(parents=True, exist_ok=True)
    for name in names or TASKS:
        task, members = TASKS[name], []
        for seed in range(task.seeds):
            model = member(name, task, seed)
            bound = mp.prove(model, "exact" if "exact" in {s.id for s in mp.strategies(model)} else "brute_force")
            print(f"{name}/{seed}", bound, flush=True)
            members.append(({"seed": seed, "sha256": model.sha256, "accuracy": {"correct": bound.correct, "total": bound.total}},
                            dict(model.tensors)))
        header = {"family": model.family.name, "sizes": model.sizes, **zoo.told(model),
                  "recipe": {"command": f"python benchmarks/train_tasks.py {name}", "steps": task.steps, "batch": BATCH}}
        zoo.save_collection(name, header, members)


if __name__ == "__main__":
    main(sys.argv[1:])
