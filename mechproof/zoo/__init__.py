"""What lies on disk: weights that ship and that readers bring,
tables of bounds and the sweep that makes them, certificates."""

from .networks import accuracy, sampled, told
from .weights import (
    DATA,
    family_of_collection,
    load,
    model_from_tensors,
    models,
    register,
    results,
    save_atomically,
    save_collection,
    whole,
)

__all__ = ["DATA", "accuracy", "family_of_collection", "load", "model_from_tensors", "models", "register", "results",
           "sampled", "save_atomically", "save_collection", "told", "whole"]
