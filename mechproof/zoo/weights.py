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
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..proof.family import Family, InputError, Model, plain, shown
from ..proof.names import SAID
from ..proof.state import own_state
from . import imports, networks

DATA = Path(__file__).parents[1] / "data"
PACKAGES = ("max_of_k", "pizza", "permutations", "transformer", "one_layer", "superposition", "groups")
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
def load(name: str | os.PathLike | Mapping[str, Tensor] | nn.Module, **said: Any) -> Model:
    """A shipped model (`collection/seed`), the path of a .safetensors or .pth file, a state_dict, or a torch module.

    `said` is what a file leaves out: `normalization_type="none", n_heads=1, task="max", layout="xW", inputs="? ? 113"`
    (transformer/settings.py has them all); `answers`, a tensor with an answer an input, for task "table".
    Errors: InputError, in one line, for an unknown name (with the nearest), a file that is no file of weights,
    missing tensors, wrong shapes, NaN or infinite weights, parts that no network here has,
    and what has to be said.
    """
    if isinstance(name, (Mapping, nn.Module)):
        return _understood(type(name).__name__, imports.of_object(name), said)
    try:
        text = os.path.expanduser(os.fspath(name))
    except TypeError:
        raise InputError(f"model is a {type(name).__name__}; expected a name, a path, a state_dict "
                         "or a torch module") from None
    if not isinstance(text, str) or not text.isprintable():
        raise InputError(f"model {text!r} has a name that is no text; rename it")
    if os.path.isdir(text):
        there = sorted(p.name for p in Path(text).iterdir() if p.suffix in (".safetensors", *imports.TORCH_FILES))
        raise InputError(f"model {text!r} is a folder; give a file in it: {', '.join(there[:3]) or 'it has none'}")
    if text.endswith((".safetensors", *imports.TORCH_FILES)) or os.path.isfile(text):
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
    raise InputError(f"model {text!r} is neither shipped nor a file of weights; nearest: "
                     f"{', '.join(near) or names[0]}")


def _load_file(path: Path, said: Mapping[str, Any]) -> Model:
    if imports.is_torch_file(path):
        return _understood(str(path), imports.of_torch_file(path), said)
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
                         "save it with safetensors, or name it .pth if torch.save wrote it") from None
    except OSError as error:
        raise InputError(f"model file {str(path)!r} cannot be read ({error.strerror or error}); "
                         "give another path") from None
    return _understood(str(path), imports.Found(tensors, metadata), said)


def _understood(name: str, found: imports.Found, said: Mapping[str, Any]) -> Model:
    """The model that these tensors are: as they stand if a family takes them so, or in one layout for all."""
    answers = said.get("answers")
    said = {key: value for key, value in said.items() if key != "answers"}
    for key in set(said) & set(found.said):
        if str(said[key]).lower() != str(found.said[key]).lower():
            raise InputError(f"model {name!r} has {key} {found.said[key]!r}, and {said[key]!r} is said; "
                             "its tensors alone would be another network")
    both = found.said | said
    imports.check_silent(found.tensors, both)
    imports.check_kind(both)
    if answers is None and "layout" not in said and _as_they_stand(found.tensors, both):
        return networks.of_task(_as_assumed(model_from_tensors(name, found.tensors, found.said), said), both)
    if strange := set(said) - set(SAID):
        raise InputError(f"{', '.join(sorted(strange))} says nothing of a network; what does: {', '.join(SAID)}, "
                         "answers")
    read = imports.canonical(imports.Found(found.tensors, both, found.notes))
    if answers is not None:
        read.tensors["answers"] = networks.table(answers)
        read.said.setdefault("task", "table")
    return _as_assumed(networks.model(name, read, families()), {})


def _as_they_stand(tensors: Mapping[str, Tensor], said: Mapping[str, Any]) -> bool:
    """Whether a family takes these tensors under their own names, and nothing said is of another kind."""
    elsewhere = {"inputs", "d_input", "eps", "attn_scale", "attention_dir"}
    if str(said.get("normalization_type", "none")).lower() != "none" or elsewhere & set(said):
        return False
    ours = {"recipe", "edit"} & set(said)                                # nobody else's layout
    if not ours and all(name in tensors and imports.is_square(tensors[name]) for name in ("W_E", "W_U")):
        return False
    for family in _fitting(tensors, said)[:1]:
        usual, sizes = family.assumed, family.sizes(_known(family, tensors), said)
        heads = str(said.get("n_heads", sizes.get("n_heads", 1)))
        return heads == str(sizes.get("n_heads", 1)) and all(
            imports.means(str(said[key]), usual[key], sizes) for key in SAID if key in said and key in usual)
    return False


def _known(family: Family, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that a family speaks of."""
    return {key: tensors[key] for key in (*family.tensors, *family.optional) if key in tensors}


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


def _as_assumed(model: Model, said: Mapping[str, Any]) -> Model:
    """The model.  Errors: InputError where the file, or who loads it, says another kind of network, or neither says
    what its tensors leave open."""
    family, ours = model.family, {"recipe", "edit"} & set(model.metadata)             # what this library wrote
    if unknown := set(said) - set(family.assumed):
        raise InputError(f"{', '.join(sorted(unknown))} says nothing of {family.name} models; what does: "
                         f"{', '.join(family.assumed) or 'nothing'}")
    for key, expected in family.assumed.items():
        for value in [str(x) for x in (model.metadata.get(key), said.get(key)) if x is not None]:
            if not imports.means(value, expected, model.sizes):
                meant = model.sizes.get(expected, expected)
                raise InputError(f"model {model.name!r} has {key} {value!r}; proofs here are about {key} {meant}, "
                                 "and its tensors alone would be another network")
    open_ = [key for key in family.asked if key not in model.metadata and key not in said]
    if open_ and not ours:
        python = ", ".join(f"{key}={family.assumed[key]!r}" for key in open_)
        flags = " ".join(f"--{key.replace('_', '-')} {family.assumed[key]}" for key in open_)
        raise InputError(f"model file {model.name!r} does not say {' and '.join(open_)}, and its tensors leave it "
                         f"open; if that is what it has: load(path, {python}), on the command line {flags}")
    return model


def results(name: str) -> dict:
    """Measurements that ship with the book (mechproof/data/results), with the commit and machine they come from."""
    return json.loads((DATA / "results" / f"{name}.json").read_text())


def _others(family: Family, tensors: Mapping[str, Tensor]) -> list[str]:
    """The tensors that do something and are none of this family's."""
    known, weights = {*family.tensors, *family.optional, *family.ignored}, ("b_", "W_")
    # an unknown gate does something where it is zero; weights and biases do nothing
    return [key for key, tensor in tensors.items() if key not in known
            and not (key.startswith(weights) and plain(tensor) and not bool((tensor != 0).any()))]


def _fitting(tensors: Mapping[str, Tensor], metadata: Mapping) -> list[Family]:
    """The families that take these tensors, sizes and all, with nothing left over that does something."""
    def fits(family: Family) -> bool:
        try:
            family.sizes(_known(family, tensors), metadata)
        except (InputError, IndexError, ValueError):
            return False
        return True
    return [family for family in families().values() if family.name not in networks.NAMED_ANEW
            and set(family.tensors) <= set(tensors) and not _others(family, tensors) and fits(family)]


def _family_of(name: str, tensors: Mapping[str, Tensor], metadata: Mapping) -> Family:
    """The family whose tensors these are.

    Errors: InputError where there is none, in the words of the family that is nearest.
    """
    if fitting := _fitting(tensors, metadata):
        return fitting[0]

    def lacking(family: Family) -> set[str]:
        return set(family.tensors) - set(tensors)
    known = [family for family in families().values() if family.name not in networks.NAMED_ANEW]
    best = min(known, key=lambda family: len(lacking(family)) + len(_others(family, tensors)))
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
    silent = {key for key in family.silent if key in tensors and not bool((tensors[key] != 0).any())}
    kept = [key for key in (*family.tensors, *family.optional) if key in tensors and key not in silent]
    return Model(name, family, {key: tensors[key] for key in kept}, metadata or {})


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


def in_half(x: Tensor) -> Tensor:
    """The same numbers in half the bytes, where float16 holds each of them."""
    return x.half() if torch.equal(x.half().float(), x) else x


def save_collection(collection: str, header: Mapping, members: Sequence[tuple[dict, Mapping[str, Tensor]]],
                    folder: Path = DATA) -> None:
    """Write a collection's models, stacked, in as many shards as keep a file below 8 MiB.

    `members` are (entry of the header, tensors); `header` says family, sizes and recipe.
    """
    one = sum(t.numel() * 4 for t in members[0][1].values())
    step = max(1, SHARD_BYTES // one)
    for shard, start in enumerate(range(0, len(members), step)):
        part = members[start : start + step]
        stacked = {key: in_half(torch.stack([tensors[key] for _, tensors in part])) for key in part[0][1]}
        text = json.dumps({"collection": collection, **header, "models": [entry for entry, _ in part]})
        save_atomically(folder / f"{collection}.{shard}.safetensors", stacked, {"mechproof": text})
