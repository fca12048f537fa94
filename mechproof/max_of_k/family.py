from ..family import Family
from . import model
from .train import train
COLLECTIONS = {
    "max-of-4": {"n_ctx": 4, "d_vocab": 64}, "max-of-5": {"n_ctx": 5, "d_vocab": 64},
    "max-of-10": {"n_ctx": 10, "d_vocab": 64}, "max-of-20": {"n_ctx": 20, "d_vocab": 64},
    "max-of-10-v128": {"n_ctx": 10, "d_vocab": 128},
    "max-of-4-v128": {"n_ctx": 4, "d_vocab": 128}, "max-of-4-v256": {"n_ctx": 4, "d_vocab": 256}}
FAMILY = Family("max_of_k", tuple(model.shapes(2, 2)), (), (), model.sizes, None, train, model.shapes, COLLECTIONS)
