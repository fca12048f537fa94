"""Networks made simpler on purpose, as models of their own.

Problem: a proof pays for structure that the network does not need.  Idea: take it away, and prove the smaller
network instead; it is another network, with its parent's hash, its own accuracy and its own bounds.

    stripped    rank-1 scores, one row for the direct path, rank-s votes, no positions: five small tensors
                logit_i = EU[i] + sum_p alpha_p (OV_left OV_right)[t_p, i],  alpha = softmax(QK_left QK_right^T)
    projected   the same architecture with W_Q W_K^T of rank 1 and W_V W_O of rank s
    decayed     the same architecture, trained further with strong weight decay (train.py)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..proof.family import InputError, Model
from .model import biased
from .paths import Paths
from .train import decayed

RANK = 10           # of the votes


def sizes(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> dict[str, int]:
    """n_ctx (from the metadata), d_vocab, and the two ranks.  Errors: InputError, as for any model."""
    n_ctx, v = str(metadata.get("n_ctx", "")), tensors["EU"].numel()
    if not n_ctx.isdecimal() or not 2 <= int(n_ctx) <= 1000:
        raise InputError(f"metadata n_ctx={n_ctx!r} says no number of positions; "
                         "expected a whole number from 2 to 1000")
    r, s = (tensors[name].shape[-1] if tensors[name].dim() == 2 else 0 for name in ("QK_left", "OV_left"))
    for name, shape in {"QK_left": (v, r), "QK_right": (v, r), "EU": (v,), "OV_left": (v, s),
                        "OV_right": (s, v)}.items():
        if tuple(tensors[name].shape) != shape or v < 2 or not r or not s:
            raise InputError(f"tensor {name} has shape {list(tensors[name].shape)}; "
                             f"expected {list(shape)} with at least two tokens and rank 1")
    return {"n_ctx": int(n_ctx), "d_vocab": v, "qk_rank": r, "ov_rank": s}


def low_rank(x: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """left [n, rank], right [rank, m] with the best product, the singular values shared out."""
    U, S, Vh = torch.linalg.svd(x, full_matrices=False)
    root = S[:rank].sqrt()
    return U[:, :rank] * root, root[:, None] * Vh[:rank]


def stripped(model: Model, rank: int = RANK) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of the stripped model; what is constant along a row of scores or votes is left out first."""
    paths = Paths(model)
    centred = lambda x: x - x.mean(1, keepdim=True)
    QK_left, QK_right = low_rank(centred(paths.A.mid), 1)
    OV_left, OV_right = low_rank(centred(paths.OV.mid), rank)
    EU = centred(paths.EU.mid.mean(0, keepdim=True) + paths.PV.mid.mean(0))[0]
    tensors = {"QK_left": QK_left, "QK_right": QK_right.T, "EU": EU, "OV_left": OV_left, "OV_right": OV_right}
    metadata = model.lineage("stripped") | {"n_ctx": str(paths.n_ctx)}
    return {name: t.float().contiguous() for name, t in tensors.items()}, metadata


def projected(model: Model, rank: int = RANK) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of the projected model: W_Q, W_K and W_V, W_O replaced
    by the factors of their best products."""
    if biased(model.tensors):
        raise InputError(f"model {model.name!r} has biases, which a projection would tear from their matrices; "
                         "expected one without")
    w = {name: t.double() for name, t in model.tensors.items()}
    h = w["W_Q"].shape[1]
    padded = lambda x, n: torch.cat([x, x.new_zeros(len(x), n - x.shape[1])], 1)
    Q, Kt = low_rank(w["W_Q"] @ w["W_K"].T, 1)
    V, Ot = low_rank(w["W_V"] @ w["W_O"], min(rank, h))
    w |= {"W_Q": padded(Q, h), "W_K": padded(Kt.T, h), "W_V": padded(V, h), "W_O": padded(Ot.T, h).T}
    return {name: t.float().contiguous() for name, t in w.items()}, model.lineage("projected")


EDITS = {"stripped": stripped, "projected": projected, "decayed": decayed}
