"""What lies on disk: weights that ship and that readers bring, tables of bounds and the sweep that makes them, certificates."""

from .weights import DATA, clear, families, family_of_collection, load, model_from_tensors, models, results, save_atomically, save_collection, whole

__all__ = ["DATA", "clear", "families", "family_of_collection", "load", "model_from_tensors", "models", "results", "save_atomically",
           "save_collection", "whole"]
