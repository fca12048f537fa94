"""Which network a file of weights is: the narrowest family whose algebra carries it, or any transformer.

Problem: most proofs speak about one kind of network, and a file may be of a larger kind that happens to be, or can be
written as, that one.  Idea: from one layout on, each way of narrowing is an identity (biases that are zero; keys'
biases, which no softmax sees; min as max of tokens counted from the top); what is dropped, folded or assumed is noted,
and what is not such a network is tried input by input (transformer/).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..proof.family import Family, InputError, Model
from ..proof.names import SAID
from ..proof.proving import COST_LIMIT, prove, strategies
from ..proof.state import own_state
from .imports import Found, means

ANY, ONE_LAYER = "transformer", "one_layer"
NAMED_ANEW = (ANY, ONE_LAYER)                       # whose tensors have canonical names
MAX = ("max_of_k", "max_of_k_heads")
ATTENTION = ("W_Q", "W_K", "W_V", "W_O")
SAMPLE = 10_000
REVERSED = "reversed"                               # tokens of a network of min: t stands for v - 1 - t


def table(answers: Any) -> Tensor:
    """Answers as a tensor.  Errors: InputError for what is none."""
    try:
        return torch.as_tensor(answers).detach().cpu().float().flatten()
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"answers are a {type(answers).__name__}; expected a tensor of whole numbers") from None


def model(name: str, found: Found, families: Mapping[str, Family]) -> Model:
    """The model, in the narrowest family.  Errors: InputError, also for what has to be said."""
    tensors, said, notes = without_zeros(found)
    kinds = {"max_of_k": heads(tensors, said, one=True), "max_of_k_heads": heads(tensors, said, one=False),
             "pizza": constant_attention(tensors, said, 3), "pizza_without_sign": constant_attention(tensors, said, 2)}
    kind = next((kind for kind, short in kinds.items() if short is not None), ANY)
    if "normalization_type" not in said:
        raise InputError(f"model {name!r} does not say normalization_type, and a file without its tensors may have one "
                         "folded in (LNPre); say it: normalization_type='none' if it has none, on the command line "
                         "--normalization-type none")
    if kind in MAX and "blocks.0.attn.b_K" in tensors:
        notes.append("b_K dropped, which no softmax sees")
    if kind == "pizza_without_sign" and str(said.get("attention", "")).lower() == "ones":
        said, notes = said | {"attention": "mean"}, [*notes, "attention that adds up as twice its mean: W_O doubled"]
    if kind != ANY:
        notes += ["assumed: task max"] if kind in MAX and "task" not in said else []
        whole = families[kind].answers | {key: str(value) for key, value in said.items()}
        return of_task(Model(name, families[kind], kinds[kind], whole | read_as(notes)), said)
    if str(said.get("tokens", "")) == REVERSED:
        raise InputError(f"model {name!r} was converted: its tokens count from the top, as proofs of max want them; "
                         "what is said makes it another kind of network, so say it of the file that was converted")
    metadata = {key: str(value) for key, value in said.items()}
    plain = metadata["normalization_type"].lower() == "none"
    notes += ["assumed: eps 1e-05"] if not plain and "eps" not in metadata else []
    wide = families[ONE_LAYER if is_one_layer(families[ONE_LAYER], tensors, metadata) else ANY]
    return Model(name, wide, tensors, metadata | read_as(notes))


def is_one_layer(family: Family, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bool:
    """Whether the network names the largest token by one layer of attention; what is wrong with it, others say."""
    try:
        return set(family.tensors) <= set(tensors) and bool(family.sizes(tensors, metadata))
    except InputError:
        return False


def read_as(notes: list[str]) -> dict[str, str]:
    return {"read_as": "; ".join(notes)} if notes else {}


def sampled(model: Model, n: int = 1000) -> str:
    """How many of n random inputs come out right when they are simply run: no proof, but it tells an owner whether
    the file was understood."""
    if model.family.sampled is None:
        return ""
    return f"run on {n} random inputs it is right on {right_of(model, n)} (a sample, no proof)"


def accuracy(model: Model) -> dict[str, int]:
    """How many inputs are right: as it ships, or counted where that is cheap, or of a sample; as the lists of models
    say it."""
    if "accuracy" in model.metadata:
        return model.metadata["accuracy"]
    listed = {s.id: s.cost for s in strategies(model)}
    for id in ("exact", "brute_force"):
        if listed.get(id, COST_LIMIT + 1) <= COST_LIMIT:
            bound = prove(model, id)
            return {"correct": bound.correct, "total": bound.total}
    return {"sampled": SAMPLE, "right": right_of(model, SAMPLE)}


@own_state()
def right_of(model: Model, n: int) -> int:
    """Right ones of n random inputs, simply run."""
    return model.family.sampled(model, n) if model.family.sampled else 0


def told(model: Model) -> dict[str, str]:
    """What a file of this model has to say beside its tensors, so that nothing is asked of it."""
    keys = (*SAID, "tokens", "read_as", "readout", *model.family.described)
    return model.family.answers | {key: str(model.metadata[key]) for key in keys if key in model.metadata}


def without_zeros(found: Found) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """Tensors without the biases that are zero; what is said; notes."""
    zero = [key for key, x in found.tensors.items() if key.rpartition(".")[2].startswith("b_") and not (x != 0).any()]
    notes = [*found.notes, *([f"{len(zero)} biases dropped, all zero"] if zero else [])]
    said = dict(found.said)
    if "normalization_type" in said:
        said["normalization_type"] = str(said["normalization_type"])
    return {key: x for key, x in found.tensors.items() if key not in zero}, said, notes


def is_norm(key: str) -> bool:
    return ".ln" in key or key.startswith("ln_")


def plain_inputs(tensors: Mapping[str, Tensor], said: Mapping[str, Any]) -> bool:
    """One layer with positions and without normalization, every token free, and outputs for all of them."""
    places = tensors.get("pos_embed.W_pos")
    return (str(said.get("normalization_type", "none")).lower() == "none" and places is not None and len(places) > 1
            and not any(is_norm(key) or (key.startswith("blocks.") and key[7:9] != "0.") for key in tensors)
            and str(said.get("inputs", "? " * len(places))).replace(",", " ").split() == ["?"] * len(places))


def heads(tensors: Mapping[str, Tensor], said: Mapping[str, Any], one: bool) -> dict[str, Tensor] | None:
    """The tensors of a Max-of-K network with one head, or with several, if it is one."""
    names = [f"blocks.0.attn.{part}" for part in ATTENTION]
    if not plain_inputs(tensors, said) or any("mlp" in key for key in tensors) or not set(names) <= set(tensors):
        return None
    v = tensors["embed.W_E"].shape[0]
    square = tensors["unembed.W_U"].shape[1] == v and str(said.get("d_input", v)) == str(v)
    task = str(said.get("task", "max")).lower()
    if not square or task not in ("max", "min") or str(said.get("attention", "learned")).lower() != "learned" or any(
            (len(tensors[name]) == 1) != one for name in names):
        return None
    sizes = {"d_head": tensors[names[0]].shape[2]}
    if "attn_scale" in said and not means(str(said["attn_scale"]), "sqrt(d_head)", sizes):
        return None
    kept = {key.rpartition(".")[2]: x for key, x in tensors.items() if not key.endswith("b_K")}
    return {key: x[0] if one and (x.dim() == 3 or key in ("b_Q", "b_V")) else x for key, x in kept.items()}


def constant_attention(tensors: Mapping[str, Tensor], said: Mapping[str, Any], n: int) -> dict[str, Tensor] | None:
    """The tensors of a network that adds with a ReLU MLP after constant attention to two positions, or to three with an
    = sign, if it is one."""
    needed = {"blocks.0.attn.W_V", "blocks.0.attn.W_O", "blocks.0.mlp.W_in", "blocks.0.mlp.W_out", "embed.W_E",
              "unembed.W_U", "pos_embed.W_pos"}
    rest = set(tensors) - needed - {"blocks.0.mlp.b_in", "blocks.0.mlp.b_out"}
    looks = [key for key in rest if not key.endswith(("W_Q", "W_K", "b_Q", "b_K"))]
    # scores that are all alike
    flat = any(f"blocks.0.attn.W_{side}" in rest and not tensors[f"blocks.0.attn.W_{side}"].any() for side in "QK")
    alike = not rest or (flat and len(rest) == 2)
    kind = str(said.get("attention", "mean" if alike else "learned")).lower()
    # two positions that are added up are twice their mean, which doubles W_O without rounding
    doubled = 2 * tensors.get("blocks.0.attn.W_O", torch.zeros(1))
    twice = kind == "ones" and n == 2 and bool(doubled.isfinite().all())
    constant = kind == "mean" or (kind == "learned" and alike) or twice
    if not needed <= set(tensors) or looks or not constant or len(tensors["pos_embed.W_pos"]) != n:
        return None
    rows, outputs = tensors["embed.W_E"].shape[0], tensors["unembed.W_U"].shape[1]
    form = ["?", "?", *([str(outputs)] if n == 3 else [])]
    ends = str(said.get("inputs", "" if n == 3 else "? ?")).replace(",", " ").split() == form
    # nothing of it is assumed: what is not said is asked for, as of any transformer
    usual = (str(said.get("normalization_type", "none")).lower() == "none" and rows == outputs + n - 2 and ends
             and str(said.get("task", "")).lower() == "sum" and str(said.get("act_fn", "")).lower() == "relu"
             and str(said.get("d_input", outputs)) == str(outputs))
    kept = {key.rpartition(".")[2]: tensors[key] for key in set(tensors) - rest}
    return None if not usual else kept | {"W_O": doubled} if twice else kept


def of_task(model: Model, said: Mapping[str, Any]) -> Model:
    """A network of min as one of max: tokens counted from the top, in embeddings and outputs alike."""
    if model.family.name not in MAX or str(said.get("task", "max")).lower() != "min":
        return model
    if str(model.metadata.get("tokens", "")) == REVERSED:
        return model
    flipped = {name: x.flip({"W_E": 0, "W_U": 1, "b_U": 0}[name]) if name in ("W_E", "W_U", "b_U") else x
               for name, x in model.tensors.items()}
    notes = [*filter(None, [model.metadata.get("read_as")]), "min as max of tokens counted from the top"]
    metadata = dict(model.metadata) | {"task": "min", "tokens": REVERSED} | read_as(notes)
    return replace(model, tensors=flipped, metadata=metadata)
