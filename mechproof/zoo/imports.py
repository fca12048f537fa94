"""What is on people's disks, as tensors with one naming and one layout.

Problem: the same network lies about under TransformerLens' names, as PyTorch's layers, transposed as in the grokking
notebooks, inside a checkpoint; and a layout that is guessed wrongly is another network.  Idea: every name that is known
has a canonical one (TransformerLens' own); every layout is a table of shapes in letters, and a file is read in the one
that its shapes fit.  Where several fit, or none, it is refused in one line, which says what would do.

    xW       TransformerLens: x W, heads first; or without the heads axis, one head or `n_heads` side by side
    Wx       grokking notebooks: W x, embeddings in columns
    linear   PyTorch: (out, in), embeddings in rows, heads side by side
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..proof.family import InputError, plain, shown

TORCH_FILES = (".pt", ".pth", ".bin", ".ckpt")
NESTED = ("state_dict", "model_state_dict", "model", "weights", "params")
SAVE = "save it anew: torch.save(model.state_dict(), \"model.pth\")"
PREFIXES = ("module.", "_orig_mod.", "model.", "transformer.")
SIDES = {"q": "W_Q", "k": "W_K", "v": "W_V", "o": "W_O", "in": "W_in", "out": "W_out", "fc_in": "W_in",
         "fc_out": "W_out"}
LAYER = r"(?:blocks\.|layers\.)?(?:(?P<layer>\d+)\.)?"
# a name, what it is called here, and whether it is PyTorch's (out, in)
RULES: tuple[tuple[str, Callable[[re.Match], str], bool], ...] = (
    (r"(?:embed\.)?W_E", lambda m: "embed.W_E", False),
    (r"(?:pos_embed\.)?W_pos", lambda m: "pos_embed.W_pos", False),
    (r"(?:unembed\.)?(W_U|b_U)", lambda m: f"unembed.{m[1]}", False),
    (LAYER + r"(?:attn\.)?(?P<part>[Wb]_[QKVO])", lambda m: f"blocks.{m['layer'] or 0}.attn.{m['part']}", False),
    (LAYER + r"(?:mlp\.)?(?P<part>[Wb]_(?:in|out))", lambda m: f"blocks.{m['layer'] or 0}.mlp.{m['part']}", False),
    (LAYER + r"(?P<ln>ln1|ln2)\.(?P<part>w|b)(?:eight|ias)?",
     lambda m: f"blocks.{m['layer'] or 0}.{m['ln']}.{m['part']}", False),
    (r"answers", lambda m: "answers", False),
    (r"ln_final\.(w|b)(?:eight|ias)?", lambda m: f"ln_final.{m[1]}", False),
    (r"(?:tok_)?embed\.weight", lambda m: "embed.W_E", True),
    (r"pos(?:_embed)?\.weight", lambda m: "pos_embed.W_pos", True),
    (r"unembed\.(w|b)(?:eight|ias)", lambda m: f"unembed.{'W_U' if m[1] == 'w' else 'b_U'}", True),
    (LAYER + r"(?:attn|mlp)\.(?P<side>[qkvo]|(?:fc_)?(?:in|out))\.(?P<part>w|b)(?:eight|ias)",
     lambda m: named(m["layer"] or "0", SIDES[m["side"]], m["part"]), True),
    (r"(?:blocks\.|attns?\.)(?P<layer>\d+)\.(?:attn\.)?out_proj\.(?P<part>w|b)(?:eight|ias)",
     lambda m: named(m["layer"], "W_O", m["part"]), True),
    (r"(?:blocks\.|attns?\.)(?P<layer>\d+)\.(?:attn\.)?in_proj_(?P<part>w|b)(?:eight|ias)",
     lambda m: named(m["layer"], "W_QKV", m["part"]), True),
)
BUFFER = re.compile(r".*(mask|IGNORE|train_pairs)$")
# parts of networks that are not read, by a piece of the name
OTHER = {"rotary": "a rotary position", "rnn": "a recurrent network", "lstm": "a recurrent network",
         "W_gate": "a gated MLP", "gate": "a gated MLP", "conv": "a convolution", "_scale": "a quantised tensor",
         "zero_point": "a quantised tensor", "_W_K": "grouped queries", "b_E": "a bias of embeddings",
         "QK_left": "a stripped network", "linear": "a layer of another network"}
# shapes by layout: h heads, k d_head, j = h k side by side
LETTERS = {
    "xW": {"W_E": ("vd",), "W_pos": ("nd",), "W_QKV": (), "W_Q": ("hdk", "dj"), "W_K": ("hdk", "dj"),
           "W_V": ("hdk", "dj"), "W_O": ("hkd", "jd"), "W_in": ("dm",), "W_out": ("md",), "W_U": ("do",)},
    "Wx": {"W_E": ("dv",), "W_pos": ("nd",), "W_QKV": (), "W_Q": ("hkd", "jd"), "W_K": ("hkd", "jd"),
           "W_V": ("hkd", "jd"), "W_O": ("dj",), "W_in": ("md",), "W_out": ("dm",), "W_U": ("do",)},
    "linear": {"W_E": ("vd",), "W_pos": ("nd",), "W_QKV": ("td",), "W_Q": ("jd",), "W_K": ("jd",), "W_V": ("jd",),
               "W_O": ("dj",), "W_in": ("md",), "W_out": ("dm",), "W_U": ("od",)},
}
BIASES = {"b_Q": ("hk", "j"), "b_K": ("hk", "j"), "b_V": ("hk", "j"), "b_QKV": ("t",), "b_O": ("d",), "b_in": ("m",),
          "b_out": ("d",), "b_U": ("o",), "w": ("d",), "b": ("d",), "answers": ("a",)}
# settings of TransformerLens' configuration that say a network of another kind, unless they are one of these
PLAIN = {"parallel_attn_mlp": ("false",), "positional_embedding_type": ("standard", "none"), "gated_mlp": ("false",),
         "use_local_attn": ("false",), "scale_attn_by_inverse_layer_idx": ("false",), "post_embedding_ln": ("false",),
         "attn_scores_soft_cap": ("-1.0", "-1", "none"), "output_logits_soft_cap": ("-1.0", "-1", "none"),
         "n_key_value_heads": ("none",), "use_qk_norm": ("false",), "final_rms": ("false",), "num_experts": ("none",),
         "use_normalization_before_and_after": ("false",), "load_in_4bit": ("false",)}
READ = ("normalization_type", "act_fn", "attention_dir", "eps", "attn_scale", "n_heads", "n_layers", "attn_only",
        "use_attn_scale")


def named(layer: str, matrix: str, part: str) -> str:
    """The canonical name of a matrix of a layer, or of its bias."""
    where = "mlp" if matrix in ("W_in", "W_out") else "attn"
    return f"blocks.{layer}.{where}.{matrix if part == 'w' else 'b' + matrix[1:]}"


@dataclass
class Found:
    """Tensors under some names, what is said of them, and what was done to them on the way."""

    tensors: dict[str, Tensor]
    said: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def of_object(given: Any) -> Found:
    """A state_dict, or a module with its configuration (`cfg` or `config`).  Errors: InputError for anything else."""
    if isinstance(given, nn.Module):
        config = getattr(given, "cfg", getattr(given, "config", None))
        return Found(dict(given.state_dict()), configured(config))
    if isinstance(given, Mapping):
        return unpacked(given, "state_dict")
    raise InputError(f"model is a {type(given).__name__}; expected a name, a path, a state_dict or a torch module")


def of_torch_file(path: Path) -> Found:
    """A file of torch.save, read as tensors alone.  Errors: InputError, also for a pickled module."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"model file {str(path)!r} does not exist; "
                         "give a path or a name that `models` lists") from None
    except pickle.UnpicklingError:
        raise InputError(f"model file {str(path)!r} holds more than tensors (a pickled module, or code), which is not "
                         f"read; {SAVE}") from None
    except Exception as error:                              # whatever a reader of broken pickles raises
        raise InputError(f"model file {str(path)!r} is no file of torch.save "
                         f"({str(error).splitlines()[0] if str(error) else 'empty'}); {SAVE}") from None
    if not isinstance(content, Mapping):
        raise InputError(f"model file {str(path)!r} holds a {type(content).__name__}, no dictionary of tensors; {SAVE}")
    return unpacked(content, f"model file {str(path)!r}")


def unpacked(content: Mapping, where: str, depth: int = 4) -> Found:
    """The state_dict inside a checkpoint, and its configuration."""
    if any(isinstance(value, Tensor) for value in content.values()):
        strange = [key for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
        if strange:
            raise InputError(f"{where} has {shown(str(strange[0]))}, which is no tensor; leave it out")
        return Found(dict(content))
    config = next((content[key] for key in ("cfg", "config", "hyper_parameters") if key in content), None)
    for key in NESTED:
        if isinstance(content.get(key), Mapping) and depth:
            found = unpacked(content[key], f"{where}[{key!r}]", depth - 1)
            return Found(found.tensors, configured(config) | found.said, [f"read from {key!r}"])
    raise InputError(f"{where} holds no tensors, nor one of {', '.join(NESTED)}; {SAVE}")


def configured(config: Any) -> dict[str, str]:
    """What a configuration says of the kind of network, in words."""
    if config is None:
        return {}
    if hasattr(config, "to_dict"):
        config = config.to_dict()
    items = config if isinstance(config, Mapping) else vars(config) if hasattr(config, "__dict__") else {}
    said = {str(key): str(value) for key, value in items.items()
            if key in (*PLAIN, *READ) and isinstance(value, (str, int, float, bool, type(None)))}
    if said.get("use_attn_scale", "").lower() == "false":
        said["attn_scale"] = "1.0"
    elif said.get("attn_scale") == "-1.0":
        # as TransformerLens writes that it was not set
        del said["attn_scale"]
    speaking = ("normalization_type", *PLAIN)
    return {key: value for key, value in said.items() if value.lower() != "none" or key in speaking}


def canonical(found: Found) -> Found:
    """The same under TransformerLens' names, heads first, whatever the layout.  Errors: InputError."""
    names, linear = renamed(stripped_prefix(found.tensors))
    refused(names, found.said)
    layout = layout_of(names, linear, str(found.said.get("layout", "")))
    notes = found.notes + ([f"turned from the layout {layout}"] if layout != "xW" else [])
    tensors = dict(heads_first(names, layout, found.said))
    n_heads = next((len(x) for name, x in tensors.items() if name.endswith("attn.W_V")), None)
    said = {key: value for key, value in found.said.items() if key not in ("layout", "use_attn_scale", *PLAIN)}
    if str(found.said.get("use_attn_scale", "")).lower() == "false":
        said["attn_scale"] = "1.0"
    if n_heads is not None:
        if str(said.get("n_heads", n_heads)) != str(n_heads):
            raise InputError(f"n_heads {said['n_heads']!r} is said, and the tensors have {n_heads} heads; leave it out")
        said["n_heads"] = str(n_heads)
    return Found(tensors, said, notes)


def stripped_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what wrappers write before every name."""
    for prefix in PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            return stripped_prefix({name.removeprefix(prefix): x for name, x in tensors.items()})
    return dict(tensors)


def renamed(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """Canonical names, and whether they were PyTorch's; buffers are left out.  Errors: InputError for what is unknown,
    zero or not: a gate that is zero does something."""
    out, styles = {}, set()
    for name, tensor in tensors.items():
        if not plain(tensor):
            kind = tensor.layout if isinstance(tensor, Tensor) else type(tensor).__name__
            raise InputError(f"tensor {shown(name)} is {kind} or quantised; expected a dense tensor of float32")
        rule = next(((m, make, style) for pattern, make, style in RULES if (m := re.fullmatch(pattern, name))), None)
        if rule is None:
            if not BUFFER.fullmatch(name):
                raise InputError(unknown(name, tensors))
            continue
        match, make, style = rule
        key = make(match)
        if key in out:
            raise InputError(f"tensor {shown(name)} is there twice, as {key}; leave one out")
        out[key] = tensor
        if key.rpartition(".")[2][0] == "W":
            styles.add(style)
    if len(styles) > 1:
        raise InputError("tensors have names of TransformerLens and of PyTorch's layers, whose layouts differ; "
                         "name them alike")
    return out, styles == {True}


def unknown(name: str, tensors: Mapping[str, Tensor]) -> str:
    """The line for a tensor that no rule knows."""
    part = next((what for piece, what in OTHER.items() if piece in name), "not a tensor of a network that is read here")
    first = ", ".join(map(shown, list(tensors)[:4]))
    return (f"tensor {shown(name)} is {part}; a bound without it would be about another network, so there is none "
            f"(the file has {first}{', ...' if len(tensors) > 4 else ''}; read are names like embed.W_E, "
            "blocks.0.attn.W_Q)")


def refused(tensors: Mapping[str, Tensor], said: Mapping[str, Any]) -> None:
    """Errors: InputError for what is lacking, and for more or less than is said."""
    lacking = [name for name in ("embed.W_E", "unembed.W_U") if name not in tensors]
    if lacking:
        there = ", ".join(map(shown, list(tensors)[:4])) or "nothing that is known"
        raise InputError(f"tensors {', '.join(lacking)} are lacking; the file has {there}, and every network that is "
                         "read here has these two")
    there = 1 + max((int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")), default=-1)
    if str(said.get("n_layers", there)) != str(there):
        raise InputError(f"the network has n_layers {said['n_layers']!r}, and the file tensors of {there}; "
                         "give it whole")
    attn_only, mlp = str(said.get("attn_only", "")).lower(), any(".mlp." in name for name in tensors)
    if attn_only == ("true" if mlp else "false"):
        raise InputError(f"the network has attn_only {attn_only!r}, and the file {'an' if mlp else 'no'} MLP; "
                         "give it whole, or leave it out")


def check_kind(said: Mapping[str, Any]) -> None:
    """Errors: InputError for a configuration of another kind of network."""
    for key, values in PLAIN.items():
        if str(said.get(key, values[0])).lower() not in values:
            raise InputError(f"model has {key} {said[key]!r}, which is not read here ({' or '.join(values)} is); "
                             "its tensors alone would be another network")


def check_silent(tensors: Mapping[str, Tensor], said: Mapping[str, Any]) -> None:
    """Errors: InputError for what would be left out and is not without effect: a mask of another attention than is
    said, and what is not finite."""
    both_ways = str(said.get("attention_dir", "")).lower() == "bidirectional"
    alone = not any(re.search(r"\.[1-9][0-9]*\.", key) for key in tensors)                   # one layer
    for key, x in tensors.items():
        if not plain(x):
            continue
        if key.endswith("mask"):
            seen = x != 0
            causal = seen.dim() == 2 and torch.equal(seen, torch.ones_like(seen).tril())
            # of one layer the last position alone is read
            if not (causal or (seen.dim() == 2 and bool((seen[-1:] if alone else seen & both_ways).all()))):
                raise InputError(f"tensor {shown(key)} hides other positions than attention_dir says; expected a lower "
                                 "triangle (causal), or ones and attention_dir='bidirectional'")
        if key.endswith("b_K") and not x.isfinite().all():
            raise InputError(f"tensor {shown(key)} holds NaN or infinity; expected finite numbers")


def means(value: str, expected: str, sizes: Mapping[str, int]) -> bool:
    """Whether a value of metadata is the one that is assumed; `sqrt(size)` is a number near that, the name of a size
    what that is."""
    if expected in sizes:
        return value == str(sizes[expected])
    if expected.startswith("sqrt"):
        try:
            return float(value) > 0 and abs(float(value) ** 2 / sizes[expected[5:-1]] - 1) < 1e-12
        except ValueError:
            return False
    return value.lower() in expected.split(" or ")


def is_square(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dim() == 2 and x.shape[0] == x.shape[1]


def layout_of(tensors: Mapping[str, Tensor], linear: bool, wanted: str) -> str:
    """The layout that all shapes fit.  Errors: InputError where none does, or several and `layout` is not said."""
    if wanted and wanted not in LETTERS:
        raise InputError(f"layout {wanted!r} is not known; expected one of: {', '.join(LETTERS)}")
    possible = ["linear"] if linear else list(LETTERS)
    misfits = {layout: misfit(tensors, layout) for layout in possible}
    fitting = [layout for layout, name in misfits.items() if name is None]
    if wanted in fitting or len(fitting) == 1:
        if wanted and wanted not in fitting:
            raise InputError(f"layout {wanted!r} does not fit: tensor {misfits.get(wanted) or 'names'}; "
                             f"{fitting[0]} does")
        return wanted or fitting[0]
    if fitting:
        raise InputError(f"tensors fit the layouts {' and '.join(fitting)}, being square, and each is another network; "
                         f"say layout={fitting[0]!r} (x W, TransformerLens) or what it is")
    nearest = possible[0]
    raise InputError(f"tensor {misfits[nearest]}; no layout that is read here fits "
                     f"({', '.join(possible)})")


def misfit(tensors: Mapping[str, Tensor], layout: str) -> str | None:
    """The first tensor whose shape does not fit the others in a layout, with what was expected; None if all do."""
    sizes: dict[str, int] = {}
    order = ("W_E", "W_pos", "W_QKV", "W_Q", "W_K", "W_V", "W_O", "W_in", "W_out", "W_U")
    place = lambda name: order.index(part) if (part := name.rpartition(".")[2]) in order else len(order)
    for name in sorted(tensors, key=place):
        shape, part = tuple(tensors[name].shape), name.rpartition(".")[2]
        options = (LETTERS[layout] | BIASES)[part]
        fits = [letters for letters in options if len(letters) == len(shape)
                and all(sizes.get(letter, n) == n for letter, n in zip(letters, shape))]
        if not fits:
            expected = (", ".join(str(sizes.get(letter, letter)) for letter in letters) for letters in options)
            return f"{name} has shape {list(shape)}; expected {' or '.join(f'[{x}]' for x in expected) or 'none'}"
        sizes |= dict(zip(fits[0], shape))
        if {"h", "k"} <= set(sizes):
            sizes.setdefault("j", sizes["h"] * sizes["k"])
        if "j" in sizes:
            sizes.setdefault("t", 3 * sizes["j"])
    return None


def heads_first(tensors: Mapping[str, Tensor], layout: str, said: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor as x W, with the heads' axis first."""
    heads = next((len(x) for name, x in tensors.items() if name.endswith(("W_V", "W_Q")) and x.dim() == 3), None)
    for name, x in tensors.items():
        part = name.rpartition(".")[2]
        if part in ("W_QKV", "b_QKV"):
            for side, y in zip("QKV", x.chunk(3)):
                yield name[:-3] + side, split(y.T if part[0] == "W" else y, part[0] + "_" + side, heads, said)
            continue
        turned = layout != "xW" and part[0] == "W" and part != "W_pos" and not (layout == "Wx" and part == "W_U")
        if turned and not (layout == "linear" and part == "W_E"):
            x = x.mT
        yield name, split(x, part, heads, said)


def split(x: Tensor, part: str, heads: int | None, said: Mapping[str, Any]) -> Tensor:
    """Heads side by side as an axis.  Errors: InputError where nothing says how many there are."""
    axes = {"W_Q": 2, "W_K": 2, "W_V": 2, "W_O": 2, "b_Q": 1, "b_K": 1, "b_V": 1}.get(part)
    if x.dim() != axes:
        return x
    text = str(heads or said.get("n_heads", ""))
    if not text.isdecimal() or not int(text):
        both = "" if "normalization_type" in said else ", normalization_type='none', if that is what it has"
        raise InputError(f"model does not say n_heads, and its tensors leave it open (tensor {part} has shape "
                         f"{list(x.shape)}); say it: n_heads=1{both} (on the command line --n-heads 1)")
    n, rows = int(text), x.shape[0] if part == "W_O" else x.shape[-1]
    if rows % n:
        raise InputError(f"tensor {part} has shape {list(x.shape)}, which {n} heads cannot share; say another n_heads")
    if part == "W_O":
        return x.reshape(n, rows // n, x.shape[1])
    return x.reshape(*x.shape[:-1], n, rows // n).movedim(-2, 0)


def is_torch_file(path: str | os.PathLike) -> bool:
    return str(path).endswith(TORCH_FILES)
