"""One process that tries spans of a model's inputs: `python -m mechproof.transformer.worker MODEL`, spans on stdin,
a line of JSON a span on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from safetensors import safe_open

from ..proof.family import Model
from ..proof.state import own_state
from .family import FAMILIES
from .trying import tried


@own_state()
def main(path: str, spans: Sequence[int]) -> None:
    with safe_open(path, "pt") as file:
        model = Model(path, FAMILIES[0], {name: file.get_tensor(name) for name in file.keys()}, file.metadata())
    for start, stop in zip(spans[::2], spans[1::2]):
        print(json.dumps([start, stop, *tried(model, start, stop)]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], [int(word) for word in sys.stdin.read().split()])
