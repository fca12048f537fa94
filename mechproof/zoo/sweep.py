"""Every strategy on every model of a collection, as a table: stopped, resumed and spread over machines at will.

Problem: thousands of proofs take minutes to hours, in which machines stop and disks fill up.  Idea: a row is a
model and a strategy, made by a worker that is told only their names; it is noted in a journal beside the
table the moment it comes, and the table is written anew, whole or not at all, when nothing more comes.  What
stands in table or journal is not made again.

    python -m mechproof sweep max-of-4 --seeds 0-150 --strategies all -o max-of-4.parquet

Complexity: one search and one check a row.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, ProcessPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryFile

from .. import __version__
from ..proof import proving
from ..proof.family import InputError, Model, parse_id
from ..proof.state import own_state
from . import weights
from .tables import KINDS, Row, noted, pyarrow, read, write

TRIES = 3                                                   # of a row whose worker dies
_loaded = lru_cache(maxsize=2)(lambda name, sha256: weights.load(name))          # anew where the file has changed


@dataclass(frozen=True)
class Task:
    """A row to be made; a worker calls it.  Without a strategy, but with a reason: the model could not even be read."""

    model: str
    sha256: str | None
    strategy: str | None
    reason: str | None = None

    def __call__(self) -> Row:
        """Search and check; whatever goes wrong is said in the row, and the other rows go on."""
        if self.reason:
            return self.failed(self.reason)
        try:
            with own_state():
                model = _loaded(self.model, self.sha256)
                bound = proving.prove(model, self.strategy)
        except Exception as error:
            return self.failed(f"{type(error).__name__}: {error}")
        rounded = {name: round(getattr(bound, name), 4) for name in ("seconds", "search_seconds")}
        return self.row(**bound.as_dict() | rounded | {"sha256": model.sha256} | truth(model))

    def row(self, **found) -> Row:
        return dict.fromkeys(KINDS) | {"model": self.model, "sha256": self.sha256, "strategy": self.strategy,
                                       "version": __version__} | found

    def failed(self, reason: str) -> Row:
        return self.row(error=reason.splitlines()[0])


def key(row: Row) -> tuple:
    """What tells rows apart: other weights or another version of the library make another row."""
    return row["model"], row["sha256"], row["strategy"], row["version"]


def truth(model: Model) -> dict[str, int]:
    """How many inputs were found right of how many tried (all of them, or a sample);
    nothing for a file without this note."""
    found = model.metadata.get("accuracy")
    if not isinstance(found, dict):
        return {}
    return {"right": found.get("correct", found.get("right")), "tried": found.get("total", found.get("sampled"))}


def members(collection: str, seeds: str | None = None) -> list[str]:
    """The models of a shipped collection (`seeds` like "0-4,7", or all), or the .safetensors files of a folder.

    Errors: InputError for an unknown collection, a seed that it lacks, a folder without files.
    """
    known = [entry["seed"] for entry in weights.models() if entry["collection"] == collection]
    if known:
        return [f"{collection}/{seed}" for seed in (known if seeds is None else chosen(seeds, known))]
    if not os.path.isdir(collection):
        every = sorted({entry["collection"] for entry in weights.models()})
        raise InputError(f"collection {collection!r} is neither shipped nor a folder; shipped: {', '.join(every)}")
    names = sorted(map(str, Path(collection).resolve().glob("*.safetensors")))
    if seeds is not None or not names:
        without = "holds no .safetensors file; name one that does"
        reason = without if not names else f"takes no seeds ({seeds!r}); leave --seeds out"
        raise InputError(f"folder {collection!r} {reason}")
    for name in names:
        if not name.isprintable():
            raise InputError(f"file {name!r} has a name that is no text; rename it")
    return names


def chosen(text: str, known: Sequence[int]) -> list[int]:
    """Seeds written like "0-4,7".  Errors: InputError for another form and for a seed that does not ship."""
    parts = [re.fullmatch("([0-9]{1,9})(?:-([0-9]{1,9}))?", part) for part in text.split(",")]
    ends = [(int(part[1]), int(part[2] or part[1])) for part in parts if part]
    if len(ends) < len(parts) or any(first > last for first, last in ends):
        raise InputError(f"seeds {text!r} is no list of seeds; write it like 0-4,7")
    if any(last > max(known) for _, last in ends) or not {seed for first, last in ends
                                                          for seed in range(first, last + 1)} <= set(known):
        raise InputError(f"seeds {text!r} are not all there; the {len(known)} that ship run from {min(known)} to "
                         f"{max(known)}")
    return list(dict.fromkeys(seed for first, last in ends for seed in range(first, last + 1)))


def tasks(names: Iterable[str], ids: Sequence[str]) -> list[Task]:
    """Every row that is wanted; `all` among the ids means the presets of moderate cost.

    A model that cannot be read is a row that says why; an id is for the models that know it.
    Errors: InputError for an id that none knows.
    """
    wanted, unknown = {}, {}
    for name in names:
        try:
            model = weights.load(name)
        except InputError as error:
            wanted[Task(name, None, None, f"InputError: {error}")] = None
            continue
        for id in ids:
            try:
                full = full_ids(model, id)
            except InputError as error:
                unknown.setdefault(id, error)
                continue
            wanted.update(dict.fromkeys(Task(name, model.sha256, strategy) for strategy in full))
            unknown[id] = None
    for error in filter(None, unknown.values()):
        raise error
    return list(wanted)


def full_ids(model: Model, id: str) -> list[str]:
    """The full ids that an id, or `all`, means for a model.  Errors: InputError for an unknown id."""
    if id == "all":
        return [s.id for s in proving.moderate(model)]
    preset, parameters = parse_id(id, proving.strategies(model))
    return [preset.full_id(parameters)]


# --- workers ---------------------------------------------------------------------------------------------------------

def _begin() -> None:
    """A worker ends with the process that started it."""
    threading.Thread(target=lambda: (parent_process().join(), os._exit(1)), daemon=True).start()


@contextmanager
def _deaf() -> Iterator[None]:
    """What is started in here leaves Ctrl-C to its parent, from its first moment on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes, which are killed where the block is left by an exception: what is in flight is lost,
    and nobody waits."""
    others = set(active_children())
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)
    try:
        with _deaf():
            for _ in range(workers):
                pool.submit(os.getpid)                      # starts a worker
        yield pool
    except BaseException:
        for process in set(active_children()) - others:
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def through(executor: Executor, waiting: deque[Task], window: int) -> Iterator[Row]:
    """Rows as they come, with at most `window` in flight.  Tasks that fall with their pool go back to the front."""
    flying, done = {}, SimpleQueue()
    try:
        while waiting or flying:
            while waiting and len(flying) < window:
                future = executor.submit(waiting[0])
                flying[future] = waiting.popleft()
                future.add_done_callback(done.put)
            future = done.get()
            try:
                row = future.result()
            except (BrokenExecutor, CancelledError):
                raise
            except Exception as error:                      # a cluster gives a task up whose workers keep dying
                row = flying[future].failed(f"{type(error).__name__}: {error}")
            del flying[future]
            yield row
    finally:
        for future in list(flying):
            future.cancel()
        waiting.extendleft(reversed(flying.values()))


def locally(todo: Sequence[Task], workers: int) -> Iterator[Row]:
    """Rows from processes of this machine (in a script: under `if __name__ == "__main__"`, since each imports it anew).

    A worker that dies takes its pool along; what was in flight is then tried alone.
    """
    waiting = deque(todo)
    while waiting:
        try:
            with _pool(min(workers, len(waiting))) as pool:
                yield from through(pool, waiting, 2 * workers)
        except BrokenExecutor:
            for _ in range(min(2 * workers, len(waiting))):
                yield alone(waiting.popleft())


def alone(task: Task) -> Row:
    """The row of a task in a process of its own, so that nothing else is blamed if that dies."""
    for _ in range(TRIES):
        try:
            with _pool(1) as pool:
                return pool.submit(task).result()
        except BrokenExecutor:
            pass
    return task.failed(f"its worker died {TRIES} times, as it does where memory runs out, or could not start")


def on_cluster(todo: Sequence[Task], address: str) -> Iterator[Row]:
    """Rows from a Dask cluster, which retries what its workers drop.  Errors: InputError where none answers."""
    try:
        from distributed import Client
    except ImportError:
        raise InputError("scheduler needs the package distributed: pip install 'mechproof[dask]'") from None
    logging.getLogger("distributed").setLevel(logging.CRITICAL)         # what matters is said in one line
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise InputError(f"scheduler {address!r} does not answer ({str(error).splitlines()[0]}); "
                         "start one with `dask scheduler`") from None
    with client:
        try:
            yield from through(client.get_executor(pure=False), deque(todo), len(todo))
        except CancelledError:
            raise InputError(f"scheduler {address!r} went away; "
                             "what came before is noted, run the same command again") from None


# --- the journal -----------------------------------------------------------------------------------------------------

@contextmanager
def _held(journal: Path) -> Iterator[None]:
    """The journal is this process's alone."""
    from filelock import FileLock, Timeout
    lock = FileLock(f"{journal}.lock")
    try:
        TemporaryFile(dir=journal.parent).close()           # else a lock that cannot be made looks like somebody's
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"output {str(journal.with_suffix(''))!r} is being written by another sweep; "
                         "wait for it, or choose another path") from None
    except OSError as error:
        raise InputError(f"output {str(journal.with_suffix(''))!r} cannot be written ({error.strerror}); "
                         "choose another path") from None
    try:
        yield
    finally:
        # while it is held: who waits for this one gets none of another's
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def note(journal: Path, rows: Iterable[Row]) -> Iterator[Row]:
    """Append rows as they come, each on the disk before the next.  Errors: InputError where the disk takes no more."""
    for row in rows:
        try:
            with journal.open("ab") as file:
                file.write(json.dumps(row).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(f"journal {str(journal)!r} cannot be written ({error.strerror}); the rows before are "
                             "there: make room and run the same command again") from None
        yield row


def sweep(wanted: Sequence[Task], path: Path,
          make: Callable[[Sequence[Task]], Iterator[Row]] = partial(locally, workers=1),
          progress: Callable[..., Iterable[Row]] = lambda rows, **_: rows) -> list[Row]:
    """Make the wanted rows that the table at `path` lacks, and return those that were made.

    A row that says an error counts as lacking.  Ctrl-C writes what there is.
    Errors: InputError where the table cannot be read or written.
    """
    pyarrow()                                               # before the work, not after it
    path = path.resolve()
    journal = path.with_suffix(path.suffix + ".journal")
    with _held(journal):
        weights.clear(path)
        before = {key(row): row for row in (read(path) if path.exists() else []) + noted(journal)}
        names = {task.model for task in wanted}
        # read now, if it could not be
        rows = {k: row for k, row in before.items() if row["strategy"] or row["model"] not in names}
        todo = [task for task in wanted if not (row := rows.get(key(task.row()))) or row["error"]]
        made, stop = [], None
        try:
            with closing(make(todo)) if todo else nullcontext(()) as coming:
                for row in note(journal, progress(coming, total=len(wanted), initial=len(wanted) - len(todo))):
                    made.append(row)
        except KeyboardInterrupt as interrupt:
            stop = interrupt
        if journal.exists() or len(rows) < len(before):
            write(path, (rows | {key(row): row for row in noted(journal)}).values())
            journal.unlink(missing_ok=True)
        if stop:
            raise stop
    return made
