"""Proofs about trained networks, computed from their weights.

>>> import mechproof as mp
>>> model = mp.load("max-of-4/0")
>>> bound = mp.prove(model, "cubic")                  # search for advice, then check it; the check is the proof
>>> 0 < bound.correct < bound.total, bound.covers([1, 2, 3, 60])
(True, True)

Everything here is looked up when first used, so that importing stays quick.
"""

from importlib import import_module

__version__ = "0.2.0"

_WHERE = {"load": "zoo", "models": "zoo", "register": "zoo",
          "strategies": "proof.proving", "search": "proof.proving", "check": "proof.proving", "prove": "proof.proving",
          "Bound": "proof.bound", "Case": "proof.bound", "Model": "proof.family", "InputError": "proof.family"}
__all__ = sorted(_WHERE)


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'mechproof' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_WHERE[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
