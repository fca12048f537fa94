"""The models that ship with the library, and the files that readers bring.

Problem: hundreds of small models must travel in a wheel, load in milliseconds and carry where they came
from.  Idea: one safetensors file a shard of a collection, every tensor stacked over seeds, recipe, hashes
and accuracies in the header; a reader's own file is one model, whose family follows from its tensors.

>>> load("max-of-4/0")
Model(max-of-4/0, max_of_k, n_ctx=4, d_vocab=64, d_model=32, d_head=32)
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from functools import lru_cache
from glob import escape
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..proof.family import Family, InputError, Model, shown
from ..proof.state import own_state

DATA = Path(__file__).parents[1] / "data"
PACKAGES = ("max_of_k", "pizza")
# entry points, where other packages name a tuple of families
GROUP = "mechproof.families"
SHARD_BYTES = 7 * 2**20
MOST_HEADER = 2**27                                         # bytes; safetensors takes 100 million


@lru_cache
def families() -> dict[str, Family]:
    """Every family by name: the chapters', and those that installed packages name in their entry points
    `mechproof.families`."""
    known: dict[str, Family] = {}
    for name in PACKAGES:
        enter(known, import_module(f"..{name}.family", __package__).FAMILIES)
    for point in entry_points(group=GROUP):
        try:
            found = point.load()
        except Exception as error:
            raise InputError(f"entry point {point.name} = {point.value} cannot be loaded ({error}); "
                             "mend or remove the package that has it") from None
        enter(known, found)
    return known


def enter(known: dict[str, Family], found: Sequence[Family]) -> None:
    """Add families to those known.  Errors: InputError for what is none, and for a name that another one has."""
    if not isinstance(found, (tuple, list)) or not all(isinstance(family, Family) for family in found):
        raise InputError(f"families are a {type(found).__name__}; expected a tuple of mechproof.proof.family.Family")
    for family in found:
        if known.setdefault(family.name, family) is not family:
            raise InputError(f"family {family.name!r} is there already; choose another name")


def register(family: Family) -> None:
    """Make a family known in this process.  Errors: as `enter`."""
    enter(families(), (family,))


def family_of_collection(collection: str) -> Family:
    """The family that trains a collection.  Errors: InputError with the nearest names."""
    known = {name: family for family in families().values() for name in family.collections}
    if collection not in known:
        near = get_close_matches(collection, known, n=3, cutoff=0.3) or sorted(known)
        raise InputError(f"collection {collection!r} is not known; nearest: {', '.join(near)}")
    return known[collection]


@lru_cache
def _shards() -> dict[str, list[tuple[Path, dict]]]:
    shards: dict[str, list[tuple[Path, dict]]] = {}
    for path in sorted(DATA.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            header = json.loads(file.metadata()["mechproof"])
        shards.setdefault(header["collection"], []).append((path, header))
    return shards


def models() -> list[dict]:
    """One entry a shipped model: name, collection, seed, family, sizes, sha256, accuracy."""
    return [{"name": f"{collection}/{entry['seed']}", "collection": collection, "family": header["family"],
             "sizes": header["sizes"], **entry}
            for collection, shards in _shards().items() for _, header in shards for entry in header["models"]]


@own_state()
def load(name: str | os.PathLike, **said: str | int) -> Model:
    """A shipped model (`collection/seed`) or the path of a .safetensors file.

    `said` is what the file's metadata leave out: `normalization_type="none", n_heads=1`.
    Errors: InputError, in one line, for an unknown name (with the nearest), a file that is not safetensors,
    missing tensors, wrong shapes, NaN or infinite weights, parts that this network does not have,
    and what has to be said.
    """
    try:
        text = os.fspath(name)
    except TypeError:
        raise InputError(f"model is a {type(name).__name__}; expected the name or the path of one") from None
    if not text.isprintable():
        raise InputError(f"model {text!r} has a name that is no text; rename it")
    if text.endswith(".safetensors") or os.path.isfile(text):
        return _load_file(Path(text), said)
    collection, _, seed = text.partition("/")
    for path, header in _shards().get(collection, []):
        for i, entry in enumerate(header["models"]):
            if str(entry["seed"]) == seed:
                with safe_open(path, "pt", device="cpu") as file:
                    tensors = {key: file.get_slice(key)[i] for key in file.keys()}
                recipe = {key: value for key, value in header.items() if key != "models"}
                return _as_assumed(Model(text, families()[header["family"]], tensors, {**recipe, **entry}), said)
    names = [entry["name"] for entry in models()]
    near = get_close_matches(text, names, n=3, cutoff=0.3)
    raise InputError(f"model {text!r} is neither shipped nor a .safetensors file; nearest: "
                     f"{', '.join(near) or names[0]}")


def _load_file(path: Path, said: Mapping[str, str | int]) -> Model:
    try:
        _no_key_twice(path)
        with safe_open(path, "pt", device="cpu") as file:
            metadata = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except FileNotFoundError:
        raise InputError(f"model file {str(path)!r} does not exist; "
                         "give a path or a name that `models` lists") from None
    except SafetensorError as error:
        raise InputError(f"model file {str(path)!r} is not safetensors ({str(error).splitlines()[0]}); "
                         "save it with safetensors") from None
    except OSError as error:
        raise InputError(f"model file {str(path)!r} cannot be read ({error.strerror or error}); "
                         "give another path") from None
    return _as_assumed(model_from_tensors(str(path), tensors, metadata), said)


def _no_key_twice(path: Path) -> None:
    """Errors: InputError for a header with a key twice, of which nobody knows which one is read."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= MOST_HEADER else b""

    twice = []
    with suppress(ValueError, RecursionError):                           # what is no JSON safetensors refuses
        json.loads(header, object_pairs_hook=lambda pairs: twice.append(len(dict(pairs)) < len(pairs)) or dict(pairs))
    if any(twice):
        raise InputError(f"model file {str(path)!r} says a key of its header twice; save it anew")


def _as_assumed(model: Model, said: Mapping[str, str | int]) -> Model:
    """The model.  Errors: InputError where the file, or who loads it, says another kind of network, or neither says
    what its tensors leave open."""
    family, ours = model.family, {"recipe", "edit"} & set(model.metadata)             # what this library wrote
    if unknown := set(said) - set(family.assumed):
        raise InputError(f"{', '.join(sorted(unknown))} says nothing of {family.name} models; what does: "
                         f"{', '.join(family.assumed) or 'nothing'}")
    for key, expected in family.assumed.items():
        for value in [str(x) for x in (model.metadata.get(key), said.get(key)) if x is not None]:
            if not _means(value, expected, model.sizes):
                raise InputError(f"model {model.name!r} has {key} {value!r}; proofs here are about {key} {expected}, "
                                 "and its tensors alone would be another network")
    open_ = [key for key in family.asked if key not in model.metadata and key not in said]
    if open_ and not ours:
        python = ", ".join(f"{key}={family.assumed[key]!r}" for key in open_)
        flags = " ".join(f"--{key.replace('_', '-')} {family.assumed[key]}" for key in open_)
        raise InputError(f"model file {model.name!r} does not say {' and '.join(open_)}, and its tensors leave it "
                         f"open; if that is what it has: load(path, {python}), on the command line {flags}")
    return model


def _means(value: str, expected: str, sizes: Mapping[str, int]) -> bool:
    """Whether a value of metadata is the one that is assumed; `sqrt(size)` is a number near that."""
    if expected.startswith("sqrt"):
        try:
            return float(value) > 0 and abs(float(value) ** 2 / sizes[expected[5:-1]] - 1) < 1e-12
        except ValueError:
            return False
    return value.lower() in expected.split(" or ")


def results(name: str) -> dict:
    """Measurements that ship with the book (mechproof/data/results), with the commit and machine they come from."""
    return json.loads((DATA / "results" / f"{name}.json").read_text())


def _others(family: Family, tensors: Mapping[str, Tensor]) -> list[str]:
    """The tensors that do something and are none of this family's."""
    known = {*family.tensors, *family.optional, *family.ignored}
    return [key for key, tensor in tensors.items() if key not in known and bool((tensor != 0).any())]


def _family_of(name: str, tensors: Mapping[str, Tensor], metadata: Mapping) -> Family:
    """The family whose tensors these are: of those it could be, one whose sizes fit and that leaves out the least.

    Errors: InputError where there is none, in the words of the family that is nearest.
    """
    def lacking(family: Family) -> set[str]:
        return set(family.tensors) - set(tensors)

    def fits(family: Family) -> bool:
        try:
            family.sizes({key: tensors[key] for key in (*family.tensors, *family.optional) if key in tensors}, metadata)
        except InputError:
            return False
        return True
    fitting = [family for family in families().values() if not lacking(family) and fits(family)]
    if fitting:
        return min(fitting, key=lambda family: len(_others(family, tensors)))
    best = min(families().values(), key=lambda family: len(lacking(family)) + len(_others(family, tensors)))
    if lacking(best):
        raise InputError(f"model {name!r} lacks {', '.join(sorted(lacking(best)))}; "
                         f"{best.name} takes {', '.join(best.tensors)}")
    return best


@own_state()
def model_from_tensors(name: str, tensors: Mapping[str, Tensor], metadata: Mapping | None = None) -> Model:
    """A Model of the family whose tensors these are, checked.  Errors: as `load`."""
    family = _family_of(name, tensors, metadata or {})
    for key in _others(family, tensors):
        part = family.foreign.get(key, "not a tensor of this network")
        raise InputError(f"tensor {shown(key)} is {part}, and is not zero; "
                         "a bound would be about another network, so there is none")
    return Model(name, family, {key: tensors[key] for key in (*family.tensors, *family.optional) if key in tensors},
                 metadata or {})


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write so that `path` appears whole or not at all.  Errors: InputError where it cannot be written."""
    folder, path = None, path.resolve() if os.path.islink(path) else path
    try:
        # nobody else's, and no file of the user's
        folder = Path(tempfile.mkdtemp(prefix=_prefix(path), dir=path.parent))
        part = folder / "part"
        part.touch()
        mode = (path if path.exists() else part).stat().st_mode
        yield part
        part.chmod(mode)
        with part.open("rb") as file:
            # else a machine that stops may keep the name and lose the content
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"output {str(path)!r} cannot be written ({reason}); choose another path") from None
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _prefix(path: Path) -> str:
    return f".{path.name[:99]}.mechproof-"


def clear(path: Path) -> None:
    """Remove what a writer of this file left that was killed; only for who knows that no other writer is at work."""
    for folder in path.parent.glob(escape(_prefix(path)) + "????????"):
        shutil.rmtree(folder, ignore_errors=True)


def save_atomically(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whole or not at all.  Errors: InputError where the folder cannot be written."""
    with whole(path) as part:
        save_file(dict(tensors), part, dict(metadata))


def save_collection(collection: str, header: Mapping, members: Sequence[tuple[dict, Mapping[str, Tensor]]],
                    folder: Path = DATA) -> None:
    """Write a collection's models, stacked, in as many shards as keep a file below 8 MiB.

    `members` are (entry of the header, tensors); `header` says family, sizes and recipe.
    """
    one = sum(t.numel() * 4 for t in members[0][1].values())
    step = max(1, SHARD_BYTES // one)
    for shard, start in enumerate(range(0, len(members), step)):
        part = members[start : start + step]
        stacked = {key: torch.stack([tensors[key] for _, tensors in part]) for key in part[0][1]}
        text = json.dumps({"collection": collection, **header, "models": [entry for entry, _ in part]})
        save_atomically(folder / f"{collection}.{shard}.safetensors", stacked, {"mechproof": text})
