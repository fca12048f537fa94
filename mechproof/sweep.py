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
from fractions import Fraction
from functools import lru_cache, partial
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from queue import SimpleQueue

from flint import arb, ctx, fmpq

from . import __version__, proving, zoo
from .family import InputError, Model, one_thread, parse_id

TRIES = 3                                                   # of a row whose worker dies
COUNTS = ("correct", "total", "unexplained_dimensions", "right", "tried")       # of any length: decimals, beyond 76 digits text
KINDS = {"model": "string", "sha256": "string", "strategy": "string", "version": "string", "accuracy_lower_bound": "float64",
         **dict.fromkeys(COUNTS[:2], "decimal"), "flops": "int64", "unexplained_dimensions": "decimal", "failure_probability": "float64",
         "advice_bytes": "int64", "seconds": "float64", "search_seconds": "float64", **dict.fromkeys(COUNTS[3:], "decimal"), "error": "string"}

Row = dict[str, object]
_one_at_a_time = threading.Lock()                           # a cluster's worker may have several threads
_loaded = lru_cache(maxsize=2)(lambda name, sha256: zoo.load(name))          # anew where the file has changed


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
            with _one_at_a_time, one_thread():
                model = _loaded(self.model, self.sha256)
                bound = proving.prove(model, self.strategy)
        except Exception as error:
            return self.failed(f"{type(error).__name__}: {error}")
        return self.row(**bound.as_dict() | {"sha256": model.sha256} | truth(model))

    def row(self, **found) -> Row:
        return dict.fromkeys(KINDS) | {"model": self.model, "sha256": self.sha256, "strategy": self.strategy, "version": __version__} | found

    def failed(self, reason: str) -> Row:
        return self.row(error=reason.splitlines()[0])


def key(row: Row) -> tuple:
    """What tells rows apart: other weights or another version of the library make another row."""
    return row["model"], row["sha256"], row["strategy"], row["version"]


def truth(model: Model) -> dict[str, int]:
    """How many inputs were found right of how many tried (all of them, or a sample); nothing for a file without this note."""
    found = model.metadata.get("accuracy")
    if not isinstance(found, dict):
        return {}
    return {"right": found.get("correct", found.get("right")), "tried": found.get("total", found.get("sampled"))}


def truth_hi(row: Row, chance: float = 1e-6) -> Fraction:
    """What no bound may exceed: the share of inputs found right, or where they were sampled the upper end of the interval at 1 - chance
    (Clopper and Pearson's, with the tail of the binomial law in balls)."""
    right, tried = row["right"], row["tried"]
    low, high = Fraction(right, tried), Fraction(1)
    if tried == row["total"] or right == tried:
        return low
    with ctx.workprec(128):
        for _ in range(40):
            middle = (low + high) / 2
            tail = (1 - arb(fmpq(middle.numerator, middle.denominator))).beta_lower(tried - right, right + 1, regularized=True)
            low, high = (low, middle) if tail < chance else (middle, high)
    return high


def members(collection: str, seeds: str | None = None) -> list[str]:
    """The models of a shipped collection (`seeds` like "0-4,7", or all), or the .safetensors files of a folder.

    Errors: InputError for an unknown collection, a seed that it lacks, a folder without files.
    """
    known = [entry["seed"] for entry in zoo.models() if entry["collection"] == collection]
    if known:
        return [f"{collection}/{seed}" for seed in (known if seeds is None else chosen(seeds, known))]
    if not os.path.isdir(collection):
        every = sorted({entry["collection"] for entry in zoo.models()})
        raise InputError(f"collection {collection!r} is neither shipped nor a folder; shipped: {', '.join(every)}")
    names = sorted(map(str, Path(collection).resolve().glob("*.safetensors")))
    if seeds is not None or not names:
        reason = "holds no .safetensors file; name one that does" if not names else f"takes no seeds ({seeds!r}); leave --seeds out"
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
    if any(last > max(known) for _, last in ends) or not {seed for first, last in ends for seed in range(first, last + 1)} <= set(known):
        raise InputError(f"seeds {text!r} are not all there; the {len(known)} that ship run from {min(known)} to {max(known)}")
    return list(dict.fromkeys(seed for first, last in ends for seed in range(first, last + 1)))


def tasks(names: Iterable[str], ids: Sequence[str]) -> list[Task]:
    """Every row that is wanted; `all` among the ids means the presets of moderate cost.

    A model that cannot be read is a row that says why; an id is for the models that know it.  Errors: InputError for an id that none knows.
    """
    wanted, unknown = {}, {}
    for name in names:
        try:
            model = zoo.load(name)
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
    """Worker processes, which are killed where the block is left by an exception: what is in flight is lost, and nobody waits."""
    others, pool = set(active_children()), ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)
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
        raise InputError(f"scheduler {address!r} does not answer ({str(error).splitlines()[0]}); start one with `dask scheduler`") from None
    with client:
        try:
            yield from through(client.get_executor(pure=False), deque(todo), len(todo))
        except CancelledError:
            raise InputError(f"scheduler {address!r} went away; what came before is noted, run the same command again") from None


# --- table and journal -----------------------------------------------------------------------------------------------

def _arrow():
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError("tables of rows need the package pyarrow: pip install 'mechproof[sweep]'") from None
    return pyarrow


def read(path: Path) -> list[Row]:
    """The rows of a table; whole numbers are int again.  Errors: InputError for a file that is no such table."""
    arrow = _arrow()
    try:
        table = arrow.parquet.read_table(path, partitioning=None)
    except (OSError, arrow.ArrowException) as error:
        raise InputError(f"table {str(path)!r} cannot be read ({str(error).splitlines()[0]}); choose another path, or remove it") from None
    if table.schema not in map(_schema, LENGTHS):
        raise InputError(f"table {str(path)!r} has other columns than a sweep's; choose another path")
    rows = table.to_pylist()
    for row in rows:
        row |= {name: int(row[name]) for name in COUNTS if row[name] is not None}
    return rows


LENGTHS = (38, 76, None)                                    # digits that a count may have, and the kind of column it takes


def _schema(digits: int | None):
    """Columns of a table whose counts have at most so many digits."""
    arrow = _arrow()
    count = {38: arrow.decimal128, 76: arrow.decimal256}.get(digits, lambda _: arrow.string())(digits)
    return arrow.schema([(name, count if kind == "decimal" else kind) for name, kind in KINDS.items()])


def shipped(collection: str):
    """The table of a shipped collection as a pandas DataFrame, with the share of inputs found right as column `truth`."""
    import pandas
    table = pandas.DataFrame(read(zoo.DATA / "results" / f"{collection}.parquet"))
    return table.assign(truth=[right / tried for right, tried in zip(table.right, table.tried)])


def write(path: Path, rows: Iterable[Row]) -> None:
    """The table, whole or not at all, in order of models and strategies."""
    arrow = _arrow()
    rows = sorted(rows, key=lambda row: (_natural(row["model"]), row["strategy"] or "", row["version"], row["sha256"] or ""))
    longest = max((len(str(row[name] or 0)) for row in rows for name in COUNTS), default=1)
    digits = next(n for n in LENGTHS if n is None or longest <= n)
    if digits is None:
        rows = [row | {name: str(row[name]) for name in COUNTS if row[name] is not None} for row in rows]
    with zoo.whole(path) as part:
        arrow.parquet.write_table(arrow.Table.from_pylist(rows, _schema(digits)), part, compression="zstd")


def _natural(name: str) -> list[tuple[int, str]]:
    """max-of-4/9 before max-of-4/10."""
    return [(int(piece), "") if i % 2 else (-1, piece) for i, piece in enumerate(re.split("([0-9]+)", name))]


def noted(journal: Path) -> list[Row]:
    """The rows of a journal; a last line that a stop cut short is taken off the file.  Errors: InputError for a file that is none."""
    if not journal.exists():
        return []
    try:
        text = journal.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:
            os.truncate(journal, len(whole))
        rows = [json.loads(line) for line in whole.splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"journal {str(journal)!r} cannot be read ({str(error).splitlines()[0]}); remove it") from None
    if not all(isinstance(row, dict) and set(row) == set(KINDS) for row in rows):
        raise InputError(f"journal {str(journal)!r} is not a sweep's; remove it")
    return rows


@contextmanager
def _held(journal: Path) -> Iterator[None]:
    """The journal is this process's alone."""
    from filelock import FileLock, Timeout
    lock = FileLock(f"{journal}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"output {str(journal.with_suffix(''))!r} is being written by another sweep; wait for it, or choose another path") from None
    except OSError as error:
        raise InputError(f"output {str(journal.with_suffix(''))!r} cannot be written ({error.strerror}); choose another path") from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)        # while it is held: who waits for this one gets none of another's
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
            raise InputError(f"journal {str(journal)!r} cannot be written ({error.strerror}); the rows before are there: "
                             "make room and run the same command again") from None
        yield row


def sweep(wanted: Sequence[Task], path: Path, make: Callable[[Sequence[Task]], Iterator[Row]] = partial(locally, workers=1),
          progress: Callable[..., Iterable[Row]] = lambda rows, **_: rows) -> list[Row]:
    """Make the wanted rows that the table at `path` lacks, and return those that were made.

    A row that says an error counts as lacking.  Ctrl-C writes what there is.  Errors: InputError where the table cannot be read or written.
    """
    _arrow()                                                # before the work, not after it
    path = path.resolve()
    journal = path.with_suffix(path.suffix + ".journal")
    with _held(journal):
        before = {key(row): row for row in (read(path) if path.exists() else []) + noted(journal)}
        names = {task.model for task in wanted}
        rows = {k: row for k, row in before.items() if row["strategy"] or row["model"] not in names}       # read now, if it could not be
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
