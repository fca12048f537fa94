"""What a transformer is besides its tensors: normalization, activation, its inputs, and which answers are right.

Problem: a file of weights leaves much open, and each guess may be another network.  Idea: every such thing has a name
(TransformerLens' where it has one) and a short list of values; the metadata say it, or whoever loads the file, and what
neither says and the tensors do not show is asked for in one line.

    normalization_type   none, LN, LNPre (no weights), RMS, RMSPre; with it `eps`, 1e-5 if not said
    act_fn               relu, gelu (by erf), gelu_new (by tanh): of an MLP
    attention            learned, mean (every position alike) or ones (all added up)
    attention_dir        causal or bidirectional: asked of two layers or more
    attn_scale           what scores are divided by, sqrt(d_head) if not said
    inputs               the tokens of an input, ? for any: "? ? 113" ends with an = sign
    d_input              a ? is a token below this
    task                 max, min, sum (modulo d_input), table (the tensor `answers`, an answer an input)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ..proof.family import InputError

LAYERS = 3
TENSORS = ("embed.W_E", "unembed.W_U")
OF_A_LAYER = ("attn.W_Q", "attn.W_K", "attn.W_V", "attn.W_O", "attn.b_Q", "attn.b_K", "attn.b_V", "attn.b_O",
              "mlp.W_in", "mlp.b_in", "mlp.W_out", "mlp.b_out", "ln1.w", "ln1.b", "ln2.w", "ln2.b")
OPTIONAL = ("pos_embed.W_pos", "unembed.b_U", "ln_final.w", "ln_final.b", "answers",
            *(f"blocks.{i}.{part}" for i in range(LAYERS) for part in OF_A_LAYER))
CHOICES = {"normalization_type": ("none", "LN", "LNPre", "RMS", "RMSPre"), "act_fn": ("relu", "gelu", "gelu_new"),
           "attention": ("learned", "mean", "ones"), "attention_dir": ("causal", "bidirectional"),
           "task": ("max", "min", "sum", "table")}
KEYS = (*CHOICES, "eps", "attn_scale", "inputs", "d_input")


@dataclass(frozen=True)
class Settings:
    """The settings of one network, read and checked; `inputs` holds None for a token that is free."""

    normalization_type: str
    act_fn: str
    attention: str
    attention_dir: str
    task: str
    eps: float
    attn_scale: float | None
    inputs: tuple[int | None, ...]
    d_input: int

    @property
    def free(self) -> list[int]:
        """The positions of the tokens that are free."""
        return [p for p, token in enumerate(self.inputs) if token is None]

    @property
    def total(self) -> int:
        """How many inputs there are."""
        return self.d_input ** len(self.free)


def layers(tensors: Mapping[str, Tensor]) -> int:
    """The number of layers that have tensors."""
    return 1 + max((int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")), default=-1)


def one_of(key: str, value: str) -> str:
    """The value as it is spelled here.  Errors: InputError with those that there are."""
    for known in CHOICES[key]:
        if value.lower() == known.lower():
            return known
    raise InputError(f"{key} {value!r} is not known; expected one of: {', '.join(CHOICES[key])}")


def number(key: str, metadata: Mapping[str, Any], default: float | None) -> float | None:
    """A positive number that the metadata may say.  Errors: InputError for anything else."""
    text = str(metadata.get(key, "")).strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1e-30 <= value <= 1e30:
        raise InputError(f"{key} {text!r} is no number from 1e-30 to 1e30; expected one like {default or 1.0}")
    return value


def template(text: str, d_vocab: int) -> tuple[int | None, ...]:
    """`? ? 113` as (None, None, 113).  Errors: InputError for what is neither ? nor a token."""
    words = text.replace(",", " ").split()
    tokens = tuple(None if word == "?" else int(word) if word.isdecimal() and len(word) < 10 else -1 for word in words)
    if not words or None not in tokens or any(t is not None and not 0 <= t < d_vocab for t in tokens):
        raise InputError(f"inputs {text!r} are no list of ? and tokens below {d_vocab}; like \"? ? {d_vocab - 1}\"")
    return tokens


def asked(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> list[str]:
    """What has to be said, and is not."""
    d_vocab, d_out = tensors["embed.W_E"].shape[0], tensors["unembed.W_U"].shape[-1]
    # whether a sum ends with an = sign no tensor says
    form = "pos_embed.W_pos" not in tensors or d_vocab != d_out or str(metadata.get("task", "")).lower() == "sum"
    wanted = {"normalization_type": True, "task": True, "act_fn": any("mlp.W_in" in name for name in tensors),
              "attention_dir": layers(tensors) > 1, "inputs": form}
    return [key for key, needed in wanted.items() if needed and key not in metadata]


def read(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Settings:
    """The settings.  Errors: InputError, in one line, for what is not said and for what cannot be."""
    sizes = {"d_vocab": tensors["embed.W_E"].shape[0], "d_out": tensors["unembed.W_U"].shape[-1]}
    if open_ := asked(tensors, metadata):
        words = {key: "|".join(CHOICES[key]) if key in CHOICES else "? ? 113 for two and a sign" for key in open_}
        raise InputError(f"model does not say {', '.join(open_)}, and its tensors leave it open; say it: "
                         + ", ".join(f"{key}={word!r}" for key, word in words.items()))
    learned = any("attn.W_Q" in name for name in tensors)
    default = {"act_fn": "relu", "attention": "learned" if learned else "mean", "attention_dir": "causal"}
    said = {key: one_of(key, str(metadata.get(key, default.get(key)))) for key in CHOICES}
    if said["attention"] == "learned" and not learned:
        raise InputError("attention 'learned' needs W_Q and W_K, which are lacking; expected attention 'mean'")
    if said["task"] == "table" and "answers" not in tensors:
        raise InputError("task 'table' needs the tensor answers, one an input, which is lacking")
    inputs = template(str(metadata.get("inputs", "? " * len(tensors.get("pos_embed.W_pos", ())))), sizes["d_vocab"])
    return Settings(**said, eps=number("eps", metadata, 1e-5), attn_scale=scale(tensors, metadata),
                    inputs=inputs, d_input=free_tokens(metadata, inputs, sizes))


def scale(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> float | None:
    """What scores are divided by; None for the square root of d_head, however many digits of it are said."""
    said = number("attn_scale", metadata, None)
    d_head = next((x.shape[-1] for name, x in tensors.items() if name.endswith("attn.W_V")), 0)
    return None if said is None or abs(said**2 - d_head) < 1e-12 * d_head else said


def means(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> dict[str, str]:
    """The settings that make a difference, in one wording."""
    found = read(tensors, metadata)
    inputs = " ".join("?" if token is None else str(token) for token in found.inputs)
    said = {"task": found.task, "inputs": inputs, "d_input": str(found.d_input), "attention": found.attention,
            "normalization_type": found.normalization_type, "attn_scale": str(found.attn_scale or "")}
    if found.normalization_type != "none":
        said["eps"] = repr(found.eps)
    if any("mlp.W_in" in name for name in tensors):
        said["act_fn"] = found.act_fn
    # of one layer the last position alone is read, which sees all
    return said | ({"attention_dir": found.attention_dir} if layers(tensors) > 1 else {})


def free_tokens(metadata: Mapping[str, Any], inputs: tuple[int | None, ...], sizes: Mapping[str, int]) -> int:
    """How many tokens a ? may be: what is said, or all below those that are fixed, where these are the last ones."""
    fixed, text = {token for token in inputs if token is not None}, str(metadata.get("d_input", ""))
    below = sizes["d_vocab"] - len(fixed)
    if not text:
        if fixed != set(range(below, sizes["d_vocab"])):
            raise InputError(f"model does not say d_input, and its fixed tokens {sorted(fixed)} are not the last ones; "
                             "say how many tokens a ? may be: d_input=N")
        return below
    if not text.isdecimal() or len(text) > 9 or not 2 <= int(text) <= sizes["d_vocab"]:
        raise InputError(f"d_input {text!r} is no number of tokens; expected 2 to {sizes['d_vocab']}")
    return int(text)


def sizes(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> dict[str, int]:
    """n_ctx, d_vocab, d_model, n_layers, n_heads, d_head, d_mlp, d_out, n_free and d_input, of checked tensors.

    Errors: InputError, as `read`, and for a tensor of another shape (expected and found).
    """
    for name, dim in (("embed.W_E", 2), ("unembed.W_U", 2), *((f"blocks.{i}.attn.W_V", 3) for i in range(LAYERS))):
        if name in tensors and tensors[name].dim() != dim:
            raise InputError(f"tensor {name} has shape {list(tensors[name].shape)}; expected {dim} dimensions")
    check_pairs(tensors)
    (d_vocab, d), n_layers = tensors["embed.W_E"].shape, layers(tensors)
    heads = next((tensors[name].shape for name in tensors if name.endswith("attn.W_V")), (0, d, 0))
    mlp = next((tensors[name].shape[-1] for name in tensors if name.endswith("mlp.W_in")), 0)
    for name, tensor in tensors.items():
        if not tensor.numel():
            raise InputError(f"tensor {name} has shape {list(tensor.shape)}; expected no axis of length 0")
    if "normalization_type" in metadata:
        check_norms(tensors, one_of("normalization_type", str(metadata["normalization_type"])))
    found = read(tensors, metadata)
    result = {"n_ctx": len(found.inputs), "d_vocab": d_vocab, "d_model": d, "n_layers": n_layers, "n_heads": heads[0],
              "d_head": heads[2], "d_mlp": mlp, "d_out": tensors["unembed.W_U"].shape[1], "n_free": len(found.free),
              "d_input": found.d_input}
    check_shapes(tensors, result)
    check_answers(tensors, found, result["d_out"])
    return result


def check_norms(tensors: Mapping[str, Tensor], kind: str) -> None:
    """Errors: InputError for weights of a normalization that is not there, and for one without its weights."""
    pairs = (("ln1", "attn.W_V"), ("ln2", "mlp.W_in"))
    used = [f"blocks.{i}.{ln}" for i in range(layers(tensors)) for ln, part in pairs if f"blocks.{i}.{part}" in tensors]
    wanted = {f"{name}.w" for name in [*used, "ln_final"]} if kind in ("LN", "RMS") else set()
    there = {name for name in tensors if ".ln" in name or name.startswith("ln_")}
    for name in sorted(wanted - there):
        raise InputError(f"tensor {name} is lacking; normalization_type {kind!r} has it (LNPre and RMSPre have none)")
    for name in sorted(there - wanted - {name[:-1] + "b" for name in wanted}):
        raise InputError(f"tensor {name} is a weight of a normalization that this network does not have "
                         f"(normalization_type {kind!r}); say which it has")


def check_pairs(tensors: Mapping[str, Tensor]) -> None:
    """Errors: InputError for half of a pair, a bias without its matrix, and a layer that lacks what others have."""
    every = {name.split(".", 2)[2] for name in tensors if name.startswith("blocks.")} & {"attn.W_V", "mlp.W_in"}
    for i in range(layers(tensors)):
        there = {name for name in OF_A_LAYER if f"blocks.{i}.{name}" in tensors}
        for name in sorted(every - there):
            raise InputError(f"tensor blocks.{i}.{name} is lacking, and other layers have it; give the network whole")
        for pair in (("attn.W_V", "attn.W_O"), ("attn.W_Q", "attn.W_K"), ("mlp.W_in", "mlp.W_out")):
            if len(there & set(pair)) == 1:
                raise InputError(f"tensor blocks.{i}.{(there & set(pair)).pop()} comes without its partner of "
                                 f"{' and '.join(pair)}; give both, or neither")
        for name in sorted(there):
            if ".b_" in name and name.replace(".b_", ".W_") not in there:
                raise InputError(f"tensor blocks.{i}.{name} is a bias without its matrix; leave it out, if it is zero")


def check_shapes(tensors: Mapping[str, Tensor], sizes: Mapping[str, int]) -> None:
    """Errors: InputError for a tensor of another shape."""
    d, h, k, m = (sizes[name] for name in ("d_model", "n_heads", "d_head", "d_mlp"))
    out, shapes = sizes["d_out"], {}
    part = {"attn.W_Q": (h, d, k), "attn.W_K": (h, d, k), "attn.W_V": (h, d, k), "attn.W_O": (h, k, d),
            "attn.b_Q": (h, k), "attn.b_K": (h, k), "attn.b_V": (h, k), "attn.b_O": (d,), "mlp.W_in": (d, m),
            "mlp.b_in": (m,), "mlp.W_out": (m, d), "mlp.b_out": (d,), "ln1.w": (d,), "ln1.b": (d,), "ln2.w": (d,),
            "ln2.b": (d,)}
    for i in range(sizes["n_layers"]):
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in part.items()}
    positions = len(tensors["pos_embed.W_pos"]) if "pos_embed.W_pos" in tensors else sizes["n_ctx"]
    shapes |= {"embed.W_E": (sizes["d_vocab"], d), "unembed.W_U": (d, out), "unembed.b_U": (out,),
               "ln_final.w": (d,), "ln_final.b": (d,), "pos_embed.W_pos": (positions, d),
               "answers": (sizes["d_input"] ** sizes["n_free"],)}
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != shapes[name]:
            raise InputError(f"tensor {name} has shape {list(tensor.shape)}; expected {list(shapes[name])}")
    if positions < sizes["n_ctx"]:
        raise InputError(f"inputs have {sizes['n_ctx']} tokens, and the network {positions} positions; leave some out")


def check_answers(tensors: Mapping[str, Tensor], settings: Settings, d_out: int) -> None:
    """Errors: InputError for answers that are no outputs."""
    table = tensors.get("answers")
    if d_out < 2:
        raise InputError(f"tensor unembed.W_U has {d_out} outputs; expected two or more, of which one is right")
    if table is None and settings.d_input > d_out:
        raise InputError(f"task {settings.task!r} has {settings.d_input} answers, and the network {d_out} outputs; "
                         f"say d_input={d_out}, or give a table of answers")
    if table is not None and (settings.task != "table" or bool(
            ((table < 0) | (table >= d_out) | (table != table.floor())).any())):
        raise InputError(f"tensor answers is for task 'table' and holds whole numbers from 0 to {d_out - 1}; "
                         "these are others")


def answers(settings: Settings, table: Tensor | None, free: Int[Tensor, "b f"]) -> Int[Tensor, " b"]:
    """The right output of each input, from its free tokens."""
    if settings.task == "table":
        weights = torch.tensor([settings.d_input**i for i in reversed(range(free.shape[1]))])
        return table[(free * weights).sum(1)].long()
    if settings.task == "sum":
        return free.sum(1) % settings.d_input
    return free.amax(1) if settings.task == "max" else free.amin(1)
