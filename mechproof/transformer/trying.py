"""Every input, tried: the longest proof, and one that any small transformer has.

Problem: a million forward passes are minutes, a machine has several cores, and who stops a count would lose it.
Idea: inputs are numbers 0 .. total - 1 (their free tokens as digits), cut into spans; a span's count stands by itself.
Where spans are many, processes take them in turn, and each fact goes into a journal, so that a count that was stopped
goes on where it was.  A journal is this user's own file, named by the model's hash and the library's version.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import NamedTuple, TextIO

import torch
from jaxtyping import Int
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from ..proof import cost
from ..proof.balls import PRECISIONS
from ..proof.bound import Case
from ..proof.family import InputError, Model, Proved, check_tokens
from .forward import Network, lead
from .settings import Settings, answers, read
from .truth import Truth

LIMIT = 2**24           # more inputs than this are not tried
SPAN = 2**14            # inputs in a span
BLOCK = 2**18           # numbers of one layer in a batch, about
LONG = 2 * 10**10       # operations from which on processes share the work and keep a journal


class Count(NamedTuple):
    """What trying a span found: inputs that are right, those that needed balls, and the operations."""

    right: int
    doubtful: int
    flops: int


def free_tokens(settings: Settings, start: int, stop: int) -> Int[Tensor, "b f"]:
    """The free tokens of these inputs: their numbers' digits."""
    n, f = torch.arange(start, stop), len(settings.free)
    return torch.stack([n // settings.d_input**i % settings.d_input for i in reversed(range(f))], 1)


def whole_inputs(settings: Settings, free: Int[Tensor, "b f"]) -> Int[Tensor, "b n"]:
    """Free tokens and fixed ones."""
    tokens = torch.tensor([0 if t is None else t for t in settings.inputs]).repeat(len(free), 1)
    tokens[:, settings.free] = free
    return tokens


class Judge:
    """Tries inputs of one model, given by their free tokens.

    Errors: InputError where more than `most` of them all are too close to call in float64.
    """

    def __init__(self, model: Model, most: int = LIMIT):
        self.model, self.network, self.truth, self.left = model, Network(model), Truth(model), most
        sizes = model.sizes
        wide = max(sizes["d_model"], sizes["d_mlp"], sizes["n_heads"] * max(sizes["d_head"], sizes["n_ctx"]), 1)
        self.step = max(1, BLOCK // (wide * sizes["n_ctx"]))
        numbers = sum(tensor.numel() for tensor in model.tensors.values())
        self.in_balls = 2 * sizes["n_ctx"] * numbers * sum(PRECISIONS) // 64

    def __call__(self, free: Int[Tensor, "b f"]) -> Count:
        """How many are right.  Complexity: a forward pass each."""
        right, doubtful, settings = 0, [], self.network.settings
        with cost.count() as counted:
            for some in free.split(self.step) if len(free) else ():
                with cost.addresses():
                    tokens = whole_inputs(settings, some)
                    answer = answers(settings, self.model.tensors.get("answers"), some)
                margin, off = lead(self.network.logits(tokens), answer)
                sure, wrong = margin > off, margin < -off
                with cost.charge(2 * len(some), "counted"):
                    right += int(sure.sum())
                    doubtful += some[~(sure | wrong)].tolist()
            self.left -= len(doubtful)
            if self.left < 0:
                raise InputError(f"model {self.model.name!r} leaves more inputs too close to call in float64 than are "
                                 "decided in balls here; try separable, or brute_force, which may take hours")
            with cost.charge(len(doubtful) * self.in_balls, "decided in balls"):
                right += sum(self.truth.right(tokens) for tokens in doubtful)
        return Count(right, len(doubtful), counted.flops)


def tried(model: Model, start: int, stop: int) -> Count:
    """Count a span of inputs.  Complexity: a forward pass each."""
    judge = Judge(model)
    counts = [judge(free_tokens(judge.network.settings, at, min(at + judge.step, stop)))
              for at in range(start, stop, judge.step)]
    return Count(*(sum(column) for column in zip(*counts))) if counts else Count(0, 0, 0)


def spans(total: int) -> list[tuple[int, int]]:
    return [(start, min(start + SPAN, total)) for start in range(0, total, SPAN)]


def journal_of(model: Model) -> Path:
    """Where the counts of a model's spans are kept while it is tried."""
    from .. import __version__
    home = os.environ.get("MECHPROOF_CACHE") or Path.home() / ".cache" / "mechproof"
    return Path(home) / f"tried-{__version__}-{model.sha256[:32]}.jsonl"


def opened(journal: Path) -> TextIO:
    """The journal to write on; nowhere, if there is no place for one: the count then has to be made in one go."""
    try:
        journal.parent.mkdir(parents=True, exist_ok=True)
        return journal.open("a")
    except OSError:
        return open(os.devnull, "a")


def kept(path: Path, total: int) -> dict[tuple[int, int], Count]:
    """The spans that a journal has; lines that are no such thing, as the last of a killed process, are left out."""
    found, known = {}, set(spans(total))
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            start, stop, *numbers = json.loads(line)
            count, whole = Count(*numbers), all(type(n) is int and n >= 0 for n in numbers)
            if (start, stop) in known and whole and max(count.right, count.doubtful) <= stop - start:
                found[start, stop] = count
        except (ValueError, TypeError):
            continue
    return found


def by_processes(model: Model, wanted: Sequence[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], Count]]:
    """Counts of spans as they come, by one process a core."""
    queue: Queue = Queue()
    workers = min(os.cpu_count() or 1, len(wanted))
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mechproof-"))
        path = Path(folder) / "model.safetensors"
        save_file(dict(model.tensors), path, {key: str(value) for key, value in model.metadata.items()})
        for i in range(workers):
            mine = [str(n) for span in wanted[i::workers] for n in span]
            # the spans go by a pipe: there may be more than a command line holds
            process = subprocess.Popen([sys.executable, "-m", f"{__package__}.worker", str(path)], text=True,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            listener = Thread(target=listen, args=(process, " ".join(mine), queue), daemon=True)
            listener.start()
            # the last first: who leaves early leaves nobody at work
            for end in (listener.join, process.wait, process.kill):
                stack.callback(end)
        for _ in wanted:
            line = queue.get()
            if line is None:
                raise RuntimeError("a process that tried inputs stopped before its end")
            start, stop, *numbers = json.loads(line)
            yield (start, stop), Count(*numbers)


def listen(process: subprocess.Popen, spans: str, queue: Queue) -> None:
    """Hand a process its spans, and what it says to the queue; None if it fails."""
    with process.stdin, process.stdout:
        with suppress(BrokenPipeError):
            process.stdin.write(spans)
            process.stdin.close()
        for line in process.stdout:
            queue.put(line)
    if process.wait():
        queue.put(None)


def all_counts(model: Model, cost_of_all: int) -> list[Count]:
    """The counts of all spans; from a journal, by processes and into the journal where it takes long."""
    total = read(model.tensors, model.metadata).total
    if cost_of_all < LONG:
        return [tried(model, *span) for span in spans(total)]
    journal = journal_of(model)
    found = kept(journal, total)
    done = sum(stop - start for start, stop in found)
    with tqdm(total=total, initial=done, disable=None, unit="input") as bar, opened(journal) as file:
        for span, count in by_processes(model, [span for span in spans(total) if span not in found]):
            found[span] = count
            file.write(json.dumps([*span, *count]) + "\n")
            file.flush()
            bar.update(span[1] - span[0])
    with suppress(OSError):
        journal.unlink()
    return list(found.values())


def case_of(model: Model) -> Callable[[Sequence[int]], Case]:
    """The case of an input, by its free tokens, by trying it in balls."""
    truth, sizes = Truth(model), model.sizes

    def case(tokens: Sequence[int]) -> Case:
        tokens = check_tokens(tokens, {"n_ctx": sizes["n_free"], "d_vocab": sizes["d_input"]})
        covered = truth.right(tokens)
        reason = "this very input was tried" + ("" if covered else ", and it is wrong")
        return Case(covered, reason, lambda: truth.margin_lo(tokens))

    return case


def check(model: Model, cost_of_all: int) -> Proved:
    """The exact number of right inputs.  Errors: InputError when there are more than 2^24.

    Complexity: a forward pass an input.
    """
    total = read(model.tensors, model.metadata).total
    if total > LIMIT:
        raise InputError(f"model {model.name!r} has {total} inputs, more than are tried one by one ({LIMIT}); "
                         "say which are meant: inputs=, d_input=")
    with cost.charge(0, "counted span by span"):
        counts = all_counts(model, cost_of_all)
    with cost.charge(sum(c.flops for c in counts), "forward passes"):
        return Proved(sum(c.right for c in counts), total, case_of(model))
