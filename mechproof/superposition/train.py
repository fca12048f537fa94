"""Ways to get such a network: at random (superposed or not), by a design, from examples, and against its own proof.

`random` draws which neurons a feature has, `superposed` the features' directions in D numbers besides, `design` takes
them from a table in which all pairs are alike (designs.py). The other two descend by Adam on all tensors, and on the
fourth power of what they look at, so that the worst counts: `examples` on the errors of random inputs, `proof` on the
bounds feature by feature (bounds.py) of the outputs of random features.  What is trained against the bound has a
short proof because that is what it was trained for; what is trained on examples may be right on as much, and nobody
knows why.

>>> weights = train({"kind": "random", "m": 5, "d": 12, "s": 2, "p": 0.5}, seed=0)
>>> weights["W_in"].shape
torch.Size([5, 12])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..proof.family import InputError, one_thread
from .designs import design
from .model import place

RECIPE = {"optimizer": "Adam", "lr": 5e-3, "lr_readout": 5e-4, "loss": "fourth power of twice the error", "batch": 256,
          "outputs_of": 4, "decay": 0.5, "steps": 1500, "start": "Bernoulli(p), b_in = -1, W_out the plain readout",
          "rounded": "to float16"}
COLLECTIONS = {
    "u-and-256": {"kind": "random", "m": 32, "d": 256, "s": 2, "p": 0.33},
    "u-and-1024": {"kind": "random", "m": 32, "d": 1024, "s": 2, "p": 0.22},
    "u-and-design-62": {"kind": "design", "design": "halves", "size": 5, "s": 2},
    "u-and-design-130": {"kind": "design", "design": "circles", "size": 5, "s": 3},
    "u-and-design-1240": {"kind": "design", "design": "quadruples", "size": 5, "s": 4},
    "u-and-examples": {"kind": "examples", "m": 32, "d": 128, "s": 2, "p": 0.2},
    "u-and-proof": {"kind": "proof", "m": 32, "d": 128, "s": 2, "p": 0.2},
    "u-and-proof-s3": {"kind": "proof", "m": 32, "d": 384, "s": 3, "p": 0.12},
}


def tells(settings: Mapping) -> dict[str, str]:
    """What a file of such a network says besides its tensors."""
    own = settings["kind"] in ("examples", "proof")
    return {"sparsity": str(settings["s"]), "readout": "own" if own else settings.get("readout", "plain")}


def train(settings: Mapping, seed: int, steps: int | None = None,
          progress: Callable[[Iterable], Iterable] = iter) -> dict[str, Tensor]:
    """One network of these settings; a design has no seed.  Errors: InputError for a kind that there is not.

    Source: Haenni et al. 2024 (random).  Complexity: O(m d); trained, O(steps m^2 d).
    """
    kinds = ("random", "superposed", "design", "examples", "proof")
    if settings["kind"] not in kinds:
        raise InputError(f"kind {settings['kind']!r} is none of {', '.join(kinds)}")
    if settings["kind"] == "design":
        W = design(settings["design"], settings["size"])
        return {"W_in": W, "b_in": -torch.ones(W.shape[1])}
    generator = torch.Generator().manual_seed(seed)
    W = (torch.rand(settings["m"], settings["d"], generator=generator) < settings["p"]).float()
    weights = {"W_in": W, "b_in": -torch.ones(settings["d"])}
    if settings["kind"] == "random":
        return weights
    if settings["kind"] == "superposed":
        E = torch.randn(len(W), settings["D"], generator=generator)
        E = (E / E.norm(dim=1, keepdim=True)).half().float()
        bias = torch.full_like(weights["b_in"], settings["bias"])
        return {"W_E": E, "W_in": (E.T @ W).half().float(), "b_in": bias, "neurons": W}
    i, j = torch.triu_indices(len(W), len(W), 1)
    both = W[i] * W[j]
    weights |= {"W_out": (both / both.sum(1, keepdim=True).clamp_min(1)).T.contiguous(), "b_out": torch.zeros(len(i))}
    recipe, descend = RECIPE | dict(settings), {"examples": on_examples, "proof": on_bounds}[settings["kind"]]
    with one_thread(), torch.enable_grad():
        weights = {name: x.requires_grad_() for name, x in weights.items()}
        optimizer = torch.optim.Adam([{"params": [x], "lr": recipe["lr_readout" if name == "W_out" else "lr"]}
                                      for name, x in weights.items()])
        rates, steps = [group["lr"] for group in optimizer.param_groups], steps or recipe["steps"]
        for step in progress(range(steps)):
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate * min(1.0, (steps - step) / (recipe["decay"] * steps))
            optimizer.zero_grad()
            descend(weights, settings["s"], generator).backward()
            optimizer.step()
    return {name: x.detach().half().float() for name, x in weights.items()}


def on_examples(w: Mapping[str, Tensor], s: int, generator: torch.Generator) -> Float[Tensor, ""]:
    """The loss on some random inputs."""
    m = len(w["W_in"])
    on = torch.rand(RECIPE["batch"], m, generator=generator).argsort(1)[:, :s]
    x, (i, j) = torch.zeros(len(on), m).scatter(1, on, 1.0), torch.triu_indices(m, m, 1)
    r = torch.relu(x @ w["W_in"] + w["b_in"]) @ w["W_out"] + w["b_out"]
    return ((2 * (r - x[:, i] * x[:, j])) ** 4).sum(1).mean()


def on_bounds(w: Mapping[str, Tensor], s: int, generator: torch.Generator) -> Float[Tensor, ""]:
    """The loss on what the outputs of some random features may be off by."""
    m = len(w["W_in"])
    at, some = place(m), torch.randint(m, (RECIPE["outputs_of"],), generator=generator)
    return torch.stack([((2 * bounds(w, s, i, at).clamp_min(0)) ** 4).sum() for i in some.tolist()]).sum()


def bounds(w: Mapping[str, Tensor], s: int, i: int, at: Int[Tensor, "m m"]) -> Float[Tensor, "kinds m1"]:
    """At most what outputs of feature i are off by, too large and too small, with i on, none on, both on.

    Complexity: O(m^2 d).
    """
    A, b, m = w["W_in"], w["b_in"], len(w["W_in"])
    R, c, found = w["W_out"][:, at[i]].T, w["b_out"][at[i]], []
    up, down = R.clamp_min(0), R.clamp_max(0)
    apart = torch.eye(m, dtype=torch.bool) | (torch.arange(m) == i)
    u = A[i] + A + b
    for r, e, truth in ((s - 1, (A[i] + b)[None] / (s - 1), 0), (s, b[None] / s, 0), (s - 2, u / max(s - 2, 1), 1)):
        if not r:
            r_ij = (R * u.relu()).sum(1) + c
            found += [r_ij - truth, truth - r_ij]
            continue
        x = A + e[:, None]                                               # [1 or m, m, d]
        upper = x.relu()
        lower = torch.where(e[:, None] > 0, x, 0.0) if r > 1 else upper
        sums = lambda R, h: (h @ R[:, :, None])[..., 0] if len(h) == m else R @ h[0].T
        for table, const in ((sums(up, upper) + sums(down, lower), c - truth),
                             (-sums(up, lower) - sums(down, upper), truth - c)):
            found.append(table.masked_fill(apart, -torch.inf).topk(r, 1).values.sum(1) + const)
    return torch.stack(found)[:, torch.arange(m) != i]
