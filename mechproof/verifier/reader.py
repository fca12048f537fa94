"""From bytes to a claim and weights of known shape.

Problem: a certificate and a model are files from strangers.  Idea: nothing is used before its type, its range and its
shape have been checked, sizes are limited, and whatever does not fit ends as `Unreadable` with the place named.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from math import comb, factorial
from pathlib import Path
from typing import Any

import numpy as np

from . import superposition
from .layer import Settings, settings
from .numbers import Unreadable, must, require

LARGEST_FILE = 2**30
MOST = {"d_vocab": 1024, "n_ctx": 1024, "width": 1024, "neurons": 2**14}
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
IGNORED = ("mask", "IGNORE", "train_pairs")
SHAPES = {
    "transformer": {"W_E": "vd", "W_pos": "nd", "W_Q": "dh", "W_K": "dh", "W_V": "dh", "W_O": "hd", "W_U": "dv"},
    "stripped": {"QK_left": "vr", "QK_right": "vr", "EU": "v", "OV_left": "vs", "OV_right": "sv"},
    "heads": {"W_E": "vd", "W_pos": "nd", "W_Q": "adh", "W_K": "adh", "W_V": "adh", "W_O": "ahd", "W_U": "dv"},
    "layer": {"embed.W_E": "ed", "unembed.W_U": "do", "blocks.0.attn.W_Q": "adh", "blocks.0.attn.W_K": "adh",
              "blocks.0.attn.W_V": "adh", "blocks.0.attn.W_O": "ahd"},
    "pizza": {"W_E": "ed", "W_pos": "pd", "W_V": "adh", "W_O": "ahd", "W_in": "dm", "W_out": "md", "W_U": "dv"},
    "superposition": {"W_in": "vk", "b_in": "k"},
    "permutations": {"W_X": "vvm", "W_Y": "vvm", "b_in": "m", "W_U": "mvv", "b_U": "vv"},
}
SAYS = {"normalization_type": ("none",), "n_layers": ("1",), "positional_embedding_type": ("standard",),
        "final_rms": ("false",), "output_logits_soft_cap": ("-1.0", "-1", "none"), "layout": ("xw",)} | dict.fromkeys(
            ("use_qk_norm", "post_embedding_ln", "use_normalization_before_and_after", "gated_mlp", "parallel_attn_mlp",
             "load_in_4bit", "scale_attn_by_inverse_layer_idx"), ("false",)) | dict.fromkeys(
                 ("num_experts", "n_key_value_heads"), ("none",))
OTHERWISE = {                                           # metadata that say another network than these tensors alone
    "transformer": SAYS | {"n_heads": ("1",), "task": ("max",), "attention": ("learned",), "attn_only": ("true",),
                           "use_attn_scale": ("true",),
                           "use_local_attn": ("false",), "attn_scores_soft_cap": ("-1.0", "-1", "none")},
    "pizza": SAYS | {"act_fn": ("relu",), "attn_only": ("false",), "task": ("sum",), "attention": ("mean",)},
    "permutations": {"act_fn": ("relu",), "task": ("composition",)}, "stripped": {},
    "superposition": {"readout": ("plain",)}}
OTHERWISE["heads"] = {key: value for key, value in OTHERWISE["transformer"].items() if key != "n_heads"}
OTHERWISE["layer"] = OTHERWISE["heads"] | {
    "normalization_type": ("none", "ln", "lnpre", "rms", "rmspre"), "task": ("max", "min"), "tokens": ("as they are",),
    "attention_dir": ("causal", "bidirectional"), "act_fn": ("relu", "gelu", "gelu_new")}
OPTIONAL = {"pizza": {"b_in": "m", "b_out": "d"}, "transformer": {"b_Q": "h", "b_V": "h", "b_O": "d", "b_U": "v"},
            "heads": {"b_Q": "ah", "b_V": "ah", "b_O": "d", "b_U": "v"},
            "layer": {"pos_embed.W_pos": "nd", "unembed.b_U": "o", "blocks.0.attn.b_Q": "ah", "blocks.0.attn.b_K": "ah",
                      "blocks.0.attn.b_V": "ah", "blocks.0.attn.b_O": "d", "blocks.0.ln1.w": "d", "blocks.0.ln1.b": "d",
                      "ln_final.w": "d", "ln_final.b": "d"}}
MAX = ("transformer", "heads")
Arrays = dict[str, np.ndarray]


def content(path: str | Path) -> bytes:
    """A file's bytes."""
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        raise Unreadable(f"file {str(path)!r} cannot be read ({getattr(error, 'strerror', None) or error})") from None
    require(len(data) <= LARGEST_FILE, f"file {str(path)!r} is larger than {LARGEST_FILE} bytes")
    return data


def parsed(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object, no key twice."""
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        require(len(dict(pairs)) == len(pairs), f"{what} says a key twice")
        return dict(pairs)

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError):
        raise Unreadable(f"{what} is not JSON") from None
    require(isinstance(value, dict), f"{what} is not a JSON object")
    return value


def integer(value: Any, low: int, high: int, what: str) -> int:
    require(type(value) is int, f"{what} is not a whole number")
    must(low <= value <= high, f"{what}: not in {low} .. {high}")
    return value


def keyed(value: Any, keys: set[str], what: str) -> dict[str, Any]:
    require(isinstance(value, dict) and set(value) == keys, f"{what} is not an object with exactly {sorted(keys)}")
    return value


@dataclass(frozen=True)
class Model:
    """Finite float32 weights of one kind of network."""

    weights: Arrays
    sizes: dict[str, int]
    kind: str
    settings: Settings | None = None

    @property
    def stripped(self) -> bool:
        """Its tensors do not say n_ctx."""
        return self.kind == "stripped"

    @property
    def inputs(self) -> int:
        """How many there are: n tokens of v each, n of v features, or two permutations of v points."""
        v, n = self.sizes["v"], self.sizes["n"]
        if self.kind == "superposition":
            return comb(v, n)
        return factorial(v) ** 2 if self.kind == "permutations" else v**n

    @property
    def sha256(self) -> str:
        """Of the tensors in order of names: name, shape and little-endian float32 bytes of each;
        of n_ctx where no tensor says it, and of settings, if the network has some."""
        digest = hashlib.sha256()
        for name, x in sorted(self.weights.items()):
            digest.update(f"{name} {list(x.shape)}\n".encode() + x.astype("<f4").tobytes())
        if self.stripped:
            digest.update(f"n_ctx {self.sizes['n']}\n".encode())
        if self.kind == "superposition":
            digest.update(f"sparsity {self.sizes['n']}\nreadout plain\n".encode())
        if self.settings:
            digest.update(self.settings.lines().encode())
        return digest.hexdigest()


def kind_of(tensors: Arrays) -> str:
    """The kind of network that has these names; of several, the first that has them in these dimensions."""
    kinds = [kind for kind, shapes in SHAPES.items() if set(shapes) <= set(tensors)]
    require(bool(kinds), "model has the tensors of no network that is read here; `mechproof convert` may write one")
    fits = lambda kind: all(tensors[name].ndim == len(letters) for name, letters in SHAPES[kind].items())
    return next(filter(fits, kinds), kinds[0])


def last(name: str) -> str:
    """The last piece of a name."""
    return name.rpartition(".")[2]


def scale(text: Any, d_head: int) -> bool:
    """Whether this is the square root of d_head."""
    try:
        return float(text) > 0 and abs(float(text) ** 2 / d_head - 1) < 1e-12
    except (TypeError, ValueError):
        return False


def model_of(tensors: Arrays, metadata: dict[str, Any]) -> Model:
    """Which network these tensors are, checked."""
    # copies: what the caller does meanwhile is another network
    tensors = of_one_head({name: np.array(x) for name, x in tensors.items()})
    kind = kind_of(tensors)
    if kind in MAX:
        tensors = speaking(tensors)
    if kind == "layer":
        biases = [name for name in OPTIONAL[kind] if last(name)[:2] == "b_"]
        tensors = {name: x for name, x in tensors.items() if name not in biases or np.any(x)}
    shapes = SHAPES[kind] | {name: letters for name, letters in OPTIONAL.get(kind, {}).items() if name in tensors}
    sizes: dict[str, int] = {}
    for name, letters in shapes.items():
        x = tensors[name]
        expected = tuple(sizes.get(letter) for letter in letters)
        require(x.dtype == np.float32 and x.ndim == len(letters)
                and all(e in (None, s) for e, s in zip(expected, x.shape)),
                f"model tensor {name} has shape {list(x.shape)} and type {x.dtype}, which do not fit")
        sizes |= dict(zip(letters, x.shape))
        require(bool(np.isfinite(x).all()), f"model tensor {name} holds NaN or infinity")
    nothing_else(tensors, shapes, kind)
    if kind in MAX:
        # as circuits.py widens it
        sizes["d"] += any(name in shapes for name in OPTIONAL[kind])
    said = of_layer(tensors, metadata, sizes) if kind == "layer" else alike(kind, metadata, sizes)
    sizes |= positions(kind, tensors, metadata, sizes)
    for letter, x in sizes.items():
        name = {"v": "d_vocab", "n": "n_ctx", "k": "neurons"}.get(letter, "width")
        # a fixed query leaves one other token at least
        require((1 if name in ("width", "neurons") or kind == "layer" else 2) <= x <= MOST[name],
                f"model has {name} {x}; at most {MOST[name]} can be checked")
    return Model({name: tensors[name] for name in shapes}, sizes, kind, said)


def positions(kind: str, tensors: Arrays, metadata: dict[str, Any], sizes: dict[str, int]) -> dict[str, int]:
    """How many tokens an input has, where no tensor of its own says so: {"n": ...}, or nothing."""
    if kind == "stripped":
        text = metadata.get("n_ctx")
        require(isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 5,
                "model metadata does not say n_ctx")
        return {"n": int(text)}
    if kind == "superposition":
        require("readout" in metadata, "model metadata does not say readout")
        return {"n": superposition.check_sizes(tensors, metadata.get("sparsity"))}
    if kind == "pizza":
        p = sizes["v"]
        require(p > 2 and all(p % k for k in range(2, int(p**0.5) + 1)), f"model has {p} classes, not an odd prime")
        require(sizes["e"] == p + 1 and sizes["p"] == 3, f"model has {sizes['e']} tokens at {sizes['p']} positions, "
                                                         f"not {p + 1} at 3")
        return {"n": 2}                                                                 # what it reads besides the sign
    if kind == "permutations":
        require(sizes["v"] > 2, f"model has {sizes['v']} points; permutations of three or more are read")
        return {"n": 2 * sizes["v"]}
    return {}


def nothing_else(tensors: Arrays, shapes: dict[str, str], kind: str) -> None:
    """Refuse a tensor of another network."""
    for name, x in tensors.items():
        nothing = name[:2] in ("b_", "W_") and not np.any(x) and kind != "layer"
        require(name in shapes or last(name) in IGNORED or nothing,
                f"model tensor {name} is no part of this network and not zero")
        # one layer, read at the last position
        seen = last(name) != "mask" or (x.ndim == 2 and bool(np.all(x[-1:] != 0)))
        require(seen, "model tensor mask hides positions")


def of_layer(tensors: Arrays, metadata: dict[str, Any], sizes: dict[str, int]) -> Settings:
    """What the metadata say of a network of one attention layer; `sizes` gets v (answers) and n (free tokens)."""
    usual("layer", metadata)
    require(str(metadata.get("n_heads", sizes["a"])) == str(sizes["a"]), "model metadata says another n_heads")
    said = settings(metadata, sizes)
    norms = {f"{ln}.{part}" for ln in ("blocks.0.ln1", "ln_final") for part in "wb"} & set(tensors)
    wanted = {"blocks.0.ln1.w", "ln_final.w"} if said.norm in ("LN", "RMS") else set()
    require(wanted <= norms and all(name[:-1] + "w" in wanted for name in norms), "model has weights of another norm")
    require(len(said.inputs) <= sizes.get("n", len(said.inputs)), "model has fewer positions than its inputs")
    require(2 <= said.v <= min(sizes["e"], sizes["o"]) and len(said.others) > 0,
            f"model has {said.v} answers and {len(said.free)} free tokens, which do not fit")
    sizes |= {"v": said.v, "n": len(said.free)}
    return said


def of_one_head(tensors: Arrays) -> Arrays:
    """Without the heads' axis where there is one head of a network of max."""
    dims = {"W_Q": 3, "W_K": 3, "W_V": 3, "W_O": 3, "b_Q": 2, "b_K": 2, "b_V": 2}
    having = {name for name in dims if name in tensors}
    if "W_in" in tensors or not all(tensors[name].ndim == dims[name] and len(tensors[name]) == 1 for name in having):
        return tensors
    return {name: x[0] if name in having else x for name, x in tensors.items()}


def speaking(tensors: Arrays) -> Arrays:
    """Without what does nothing: biases that are zero, and those of keys, which no softmax sees."""
    require(bool(np.isfinite(tensors.get("b_K", np.zeros(1))).all()), "model tensor b_K holds NaN or infinity")
    return {name: x for name, x in tensors.items() if name != "b_K" and (name[:2] != "b_" or np.any(x))}


def usual(kind: str, metadata: dict[str, Any]) -> None:
    """Refuse a setting of another kind of network."""
    for key, meant in OTHERWISE[kind].items():
        require(str(metadata.get(key, meant[0])).lower() in meant,
                f"model metadata says {key} {metadata.get(key)!r}, which is another network")


def alike(kind: str, metadata: dict[str, Any], sizes: dict[str, int]) -> None:
    """Refuse metadata that say another network than the tensors alone."""
    if metadata.get("tokens") == "reversed" and metadata.get("task") == "min":
        # a network of max already: its tokens count from the top
        metadata = metadata | {"task": "max"}
    usual(kind, metadata)
    if kind not in ("stripped", "permutations"):
        free = ["?"] * sizes["n"] if kind in MAX else ["?", "?", str(sizes["v"])]
        require(str(metadata.get("inputs", " ".join(free))).replace(",", " ").split() == free
                and str(metadata.get("d_input", sizes["v"])) == str(sizes["v"])
                and str(metadata.get("n_heads", sizes.get("a", 1))) == str(sizes.get("a", 1)),
                "model metadata say inputs, d_input or n_heads of another network")
    if kind in MAX and "attn_scale" in metadata:
        require(scale(metadata["attn_scale"], sizes["h"]), "model metadata says attn_scale "
                                                           f"{metadata['attn_scale']!r}, not sqrt({sizes['h']})")


def safetensors(data: bytes) -> tuple[Arrays, dict[str, Any]]:
    """Tensors and metadata: eight bytes of header length, a JSON header, and the tensors' bytes without gaps."""
    length = int.from_bytes(data[:8], "little")
    require(len(data) >= 8 and length <= len(data) - 8, "model is not a safetensors file")
    header, body = parsed(data[8 : 8 + length], "model header"), data[8 + length :]
    metadata = header.pop("__metadata__", {})
    require(isinstance(metadata, dict), "model metadata is not an object")
    tensors, end = {}, 0
    offsets = lambda entry: entry.get("data_offsets") if isinstance(entry, dict) else None
    at = lambda entry: offsets(entry) if isinstance(offsets(entry), list) else []
    require(all(len(at(e)) == 2 and all(type(k) is int for k in at(e)) for e in header.values()),
            "model header has a tensor without offsets")
    for name, entry in sorted(header.items(), key=lambda item: at(item[1])):
        entry = keyed(entry, {"dtype", "shape", "data_offsets"}, f"model tensor {name!r}")
        shape, (start, stop) = entry["shape"], entry["data_offsets"]
        require(start == end <= stop <= len(body), f"model tensor {name!r} overlaps another, or leaves a gap")
        tensors[name], end = array(body[start:stop], entry["dtype"], shape, f"model tensor {name!r}"), stop
    require(end == len(body), "model has bytes that belong to no tensor")
    return tensors, metadata


def array(data: bytes, dtype: Any, shape: Any, what: str) -> np.ndarray:
    """float32 from F32, F16, BF16; bytes of other types, which no network has, as they are."""
    require(isinstance(shape, list) and len(shape) <= 8
            and all(type(n) is int and 0 <= n <= LARGEST_FILE for n in shape), f"{what} has no shape")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        return np.frombuffer(data, np.uint8)
    kind = np.dtype(DTYPES[dtype])
    size = kind.itemsize
    for n in shape:
        size *= n
    require(size == len(data), f"{what} has {len(data)} bytes, not those of its shape")
    x = np.frombuffer(data, kind).reshape(shape)
    if dtype == "BF16":
        return (x.astype(np.uint32) << 16).view(np.float32)
    return x.astype(np.float32) if dtype != "F64" else x


def advised(entry: Any, shape: tuple[int, ...], dtype: str, name: str) -> np.ndarray:
    """One array of advice, of the expected shape and type."""
    entry = keyed(entry, {"dtype", "shape", "base64"}, f"advice {name!r}")
    require(entry["dtype"] == dtype and entry["shape"] == list(shape),
            f"advice {name!r} is not {dtype} of shape {list(shape)}")
    require(all(type(n) is int for n in entry["shape"]) and isinstance(entry["base64"], str),
            f"advice {name!r} has values of wrong types")
    try:
        data = base64.b64decode(entry["base64"], validate=True)
    except (binascii.Error, ValueError):
        raise Unreadable(f"advice {name!r} is not base64") from None
    require(len(data) == int(np.prod(shape)) * np.dtype(dtype).itemsize,
            f"advice {name!r} has the wrong number of bytes")
    return np.frombuffer(data, dtype).reshape(shape)
