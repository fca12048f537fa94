"""What a chapter's package tells the roof, and the model that both speak of.

Problem: loading, proving, listing and training must work for every chapter's networks, and the roof may
know none of them.  Idea: a chapter registers one `Family`: its tensors and their sizes, its recipe and its
strategies.  A strategy is advice + check: `search` may use anything, `check`
trusts nothing.

Errors meant for people are `InputError`: one line that names the argument, its value and what would do.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from .names import STRATEGIES
from .state import InputError, own_state

Advice = dict[str, Tensor]
Parameters = dict[str, int]


ABSENT = "a part that this network does not have"
BUFFERS = ("mask", "IGNORE", "train_pairs")                              # in files of weights, without effect


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network as data: float32 tensors under their usual names, and where they came from.

    The tensors are copied, and checked however the model is made.
    Errors: InputError for a tensor that the family lacks or does not
    know, of another shape or type, or with NaN or infinity.
    """

    name: str
    family: Family
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        if not isinstance(self.family, Family) or not isinstance(self.tensors, Mapping):
            raise InputError(f"model {self.name!r} is made of a {type(self.family).__name__} and a "
                             f"{type(self.tensors).__name__}; mp.load takes the name or path of one")
        with own_state():
            object.__setattr__(self, "tensors", owned(self.family, self.tensors))
            self.family.sizes(self.tensors, self.metadata)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    @property
    def sizes(self) -> dict[str, int]:
        """n_ctx, d_vocab, ... as the family reads them off the tensors."""
        return self.family.sizes(self.tensors, self.metadata)

    @property
    def sha256(self) -> str:
        """Hash of all that a bound depends on: tensors (name, shape, float32 little-endian bytes, in order of names),
        and what else the family reads (`key value`, a line each)."""
        digest = hashlib.sha256()
        for name in sorted(self.tensors):
            tensor = self.tensors[name].contiguous()
            digest.update(f"{name} {list(tensor.shape)}\n".encode())
            digest.update(tensor.numpy().astype("<f4").tobytes())
        for key in self.family.described:
            digest.update(f"{key} {self.sizes[key]}\n".encode())
        for key, value in self.family.means(self.tensors, self.metadata).items():
            digest.update(f"{key} {value}\n".encode())
        return digest.hexdigest()

    def lineage(self, edit: str) -> dict[str, str]:
        """The metadata of a model that was made from this one."""
        return self.family.answers | {"edit": edit, "parent": self.name, "parent_sha256": self.sha256}

    def __repr__(self) -> str:
        return f"Model({self.name}, {self.family.name}, {', '.join(f'{k}={v}' for k, v in self.sizes.items())})"


def shown(name: str) -> str:
    """A name out of a file, on one line."""
    return name if name.isprintable() else repr(name)


def plain(x: Any) -> bool:
    """Whether this is a dense tensor and nothing that only behaves like one."""
    dense = type(x) in (Tensor, nn.Parameter) and x.layout is torch.strided and not x.is_nested
    return dense and x.device.type != "meta"


def owned(family: Family, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of a family's tensors in float32.  Errors: InputError, as for a Model."""
    lacking, strange = set(family.tensors) - set(tensors), set(tensors) - {*family.tensors, *family.optional}
    if lacking or strange:
        raise InputError(f"tensors {', '.join(sorted(map(shown, lacking or strange)))} are "
                         f"{'lacking' if lacking else 'no part of this network'}; "
                         f"{family.name} takes {', '.join(family.tensors)}")
    for key, tensor in tensors.items():
        if not plain(tensor):
            raise InputError(f"tensor {key} is a {type(tensor).__name__}; expected a dense tensor")
        if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise InputError(f"tensor {key} is {tensor.dtype}; expected float32 (round it yourself, x.float(): what is "
                             "then proved is about the rounded network)")
    own = {key: tensor.detach().to("cpu", torch.float32, copy=True).contiguous() for key, tensor in tensors.items()}
    for key, tensor in own.items():
        if not tensor.isfinite().all():
            raise InputError(f"tensor {key} holds NaN or infinity; expected finite numbers")
    return own


@dataclass(frozen=True)
class Parameter:
    """A whole-numbered knob of a strategy: its default, the range it may take,
    and what its values are called (if they are)."""

    default: int
    low: int
    high: int
    names: tuple[str, ...] = ()

    def read(self, text: str) -> int | None:
        """The value that a text stands for; None where it stands for none."""
        if self.names:
            return self.names.index(text) if text in self.names else None
        value = int(text) if re.fullmatch("-?[0-9]{1,9}", text) else None
        return value if value is not None and self.low <= value <= self.high else None

    def text(self, value: int) -> str:
        return self.names[value] if self.names else str(value)

    def as_dict(self) -> dict:
        """JSON of a knob: its default and its range, or the names it takes."""
        if self.names:
            return {"default": self.text(self.default), "values": list(self.names)}
        return {"default": self.default, "low": self.low, "high": self.high}

    @property
    def range(self) -> str:
        return " or ".join(self.names) if self.names else f"whole numbers from {self.low} to {self.high}"


def named(default: str, *names: str) -> Parameter:
    """A knob whose values have names."""
    return Parameter(names.index(default), 0, len(names) - 1, names)


@dataclass(frozen=True)
class Spec:
    """What one tensor of advice must look like: shape, integer or real, and for integers the range."""

    shape: tuple[int, ...]
    low: int | None = None
    high: int | None = None


@dataclass(frozen=True)
class Proved:
    """What a check hands back: exact counts, the case of any input, and (asked after the count)
    what rounding alone lost."""

    correct: int
    total: int
    case: Callable[[Sequence[int]], Any]
    undecided: Callable[[], int] = lambda: 0


@dataclass(frozen=True)
class Strategy:
    """One way to prove, for models of given sizes.  `cost` predicts the operations of its check."""

    id: str
    label: str
    family: str
    cost: int
    parameters: Mapping[str, Parameter]
    complexity: str
    search: Callable[[Model, Parameters], Advice]
    check: Callable[[Model, Advice, Parameters], Proved]
    advice: Callable[[Parameters], Mapping[str, Spec]]
    unexplained_dimensions: Callable[[Parameters], int | None]
    failure_probability: float = 0.0                         # of a check that draws coins

    def full_id(self, parameters: Parameters) -> str:
        """The id with every parameter that is not at its default."""
        changed = [f"{k}={self.parameters[k].text(v)}" for k, v in parameters.items()
                   if v != self.parameters[k].default]
        return self.id + (":" + ",".join(changed) if changed else "")

    def __repr__(self) -> str:
        return f"Strategy({self.id})"


@dataclass(frozen=True)
class Family:
    """A chapter's kind of network: `sizes` reads and checks tensors, the rest is told by its name."""

    name: str
    tensors: Sequence[str]
    # known parts that must be absent or zero, and what they are
    foreign: Mapping[str, str]
    ignored: Sequence[str]                                   # buffers that change nothing
    sizes: Callable[[Mapping[str, Tensor], Mapping[str, Any]], dict[str, int]]     # from tensors and metadata
    strategies: Callable[[Mapping[str, int]], list[Strategy]]
    train: Callable[..., dict[str, Tensor]] | None           # None: made from other models
    recipe: Mapping[str, Any]
    collections: Mapping[str, Mapping[str, Any]]             # name -> settings that `train` takes
    numbers: Callable[[Mapping[str, int]], int] = lambda sizes: 0         # about how many a proof holds at once
    optional: Sequence[str] = ()                             # tensors that a file may have besides
    silent: Sequence[str] = ()                               # of these, what is left out where it is zero
    described: Sequence[str] = ()                            # sizes that the metadata say, since no tensor does
    # and settings of theirs, each network's in one wording
    means: Callable[[Mapping[str, Tensor], Mapping[str, Any]], Mapping[str, str]] = lambda tensors, metadata: {}
    # what else a network of this kind is, in the words of a file's metadata
    assumed: Mapping[str, str] = field(default_factory=dict)
    # of these, what a file must say, since its tensors might be those of another kind
    asked: Sequence[str] = ()
    # what a file of a collection with these settings says besides
    tells: Callable[[Mapping[str, Any]], Mapping[str, str]] = lambda settings: {}
    edits: Mapping[str, Callable[[Model], tuple[dict[str, Tensor], dict[str, str]]]] = field(default_factory=dict)
    # right ones of so many random inputs, run as anybody would: no proof, but it tells whether a file was understood
    sampled: Callable[[Model, int], int] | None = None

    def recipe_of(self, collection: str) -> dict[str, Any]:
        """The recipe, with what a collection changes of it."""
        settings = self.collections.get(collection, {})
        return dict(self.recipe) | {key: value for key, value in settings.items() if key in self.recipe}

    @property
    def answers(self) -> dict[str, str]:
        """Metadata that say what is asked of a file."""
        return {key: self.assumed[key] for key in self.asked}


@contextmanager
def one_thread() -> Iterator[None]:
    """Work in here: the same sums in the same order, on every machine of a kind."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def parse_id(text: str, strategies: Sequence[Strategy], rank: int | None = None) -> tuple[Strategy, Parameters]:
    """A strategy and all its parameters from `id[:key=value,...]`; `rank` is shorthand for a last `rank=...`,
    and that for every `..._rank` of a strategy that has several.

    Errors: InputError for an unknown id (with the nearest names), an unknown key, a value out of range.
    """
    name, _, rest = text.partition(":")
    by_id = {s.id: s for s in strategies}
    if name not in by_id:
        near = get_close_matches(name, by_id, n=3, cutoff=0.3)
        if name in STRATEGIES:
            raise InputError(f"strategy {name!r} is for another kind of network; this one has: "
                             f"{', '.join(list(by_id)[:4])}{', ...' if len(by_id) > 4 else ''}")
        raise InputError(f"strategy {name!r} is not known; nearest: {', '.join(near) or 'see `strategies`'}")
    strategy, pairs = by_id[name], [pair for pair in rest.split(",") if pair]
    values = {key: p.default for key, p in strategy.parameters.items()}
    for pair in pairs + ([f"rank={rank}"] if rank is not None else []):
        key, _, value = pair.partition("=")
        keys = [key] if key in values else [k for k in values if key == "rank" and k.endswith("_rank")]
        if not keys:
            raise InputError(f"parameter {key!r} is not one of {name}; it takes: {', '.join(values) or 'none'}")
        for key in keys:
            read = strategy.parameters[key].read(value)
            if read is None:
                raise InputError(f"{pair!r} is out of range for {name}; it takes {strategy.parameters[key].range}")
            values[key] = read
    return strategy, values


def check_tokens(tokens: Any, sizes: Mapping[str, int]) -> list[int]:
    """The tokens as a list of ints.  Errors: InputError where they are no n_ctx whole numbers below d_vocab."""
    n_ctx, d_vocab = sizes["n_ctx"], sizes["d_vocab"]
    tokens = tokens.tolist() if isinstance(tokens, Tensor) else tokens
    whole = isinstance(tokens, (list, tuple)) and all(isinstance(t, int) and 0 <= t < d_vocab for t in tokens)
    if not whole or len(tokens) != n_ctx:
        raise InputError(f"tokens {tokens} are no input of this model; "
                         f"expected {n_ctx} whole numbers from 0 to {d_vocab - 1}")
    return list(tokens)


def check_advice(advice: object, specs: Mapping[str, Spec]) -> Advice:
    """The advice as int64 and float64 tensors, or one line that says which entry is wrong and what would do."""
    if not isinstance(advice, Mapping) or set(advice) != set(specs):
        names = sorted(advice) if isinstance(advice, Mapping) else type(advice).__name__
        raise InputError(f"advice has {names}; this strategy takes {sorted(specs)}")
    clean = {}
    for name, spec in specs.items():
        try:
            tensor = torch.as_tensor(advice[name])
            if not plain(tensor):
                raise TypeError
            tensor = tensor.detach().cpu()
        except (TypeError, ValueError, RuntimeError):
            raise InputError(f"advice {name!r} is a {type(advice[name]).__name__}; "
                             "expected an array of numbers") from None
        low, high = spec.low, spec.high
        real = low is None or high is None
        if tensor.is_complex() or (not real and tensor.is_floating_point()):
            raise InputError(f"advice {name!r} has dtype {tensor.dtype}; "
                             f"expected {'real numbers' if real else 'integers'}")
        # the caller may change theirs
        copied = tensor.to(torch.float64 if real else torch.int64, copy=True)
        if tuple(tensor.shape) != spec.shape:
            raise InputError(f"advice {name!r} has shape {list(tensor.shape)}; expected {list(spec.shape)}")
        if real and not copied.isfinite().all():
            raise InputError(f"advice {name!r} holds NaN or infinity; expected finite numbers")
        if low is not None and high is not None and bool(((copied < low) | (copied > high)).any()):
            raise InputError(f"advice {name!r} runs from {int(copied.min())} to {int(copied.max())}; "
                             f"expected {low} to {high}")
        clean[name] = copied
    return clean
