"""Bounds as a table on disk: one row a model and a strategy, counts of any length, the truth beside the bound.

Problem: 64^20 is beyond any number a table has, and half a file is worse than none.  Idea: counts are decimals, a
table is written whole or not at all, and what comes row by row is noted in a journal of one JSON line each, of
which a torn end is cut off.

>>> from mechproof.zoo import tables
>>> bounds = tables.shipped("max-of-4")                  # a pandas DataFrame of all proofs about 151 models
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

from flint import arb, ctx, fmpq

from ..proof.family import InputError
from . import weights

KINDS = {"model": "string", "sha256": "string", "strategy": "string", "version": "string",
         "accuracy_lower_bound": "float64", "correct": "decimal", "total": "decimal", "flops": "int64",
         "unexplained_dimensions": "decimal", "failure_probability": "float64", "advice_bytes": "int64",
         "seconds": "float64", "search_seconds": "float64", "right": "decimal", "tried": "decimal", "error": "string"}
# of any length: beyond 76 digits they are text
COUNTS = [name for name, kind in KINDS.items() if kind == "decimal"]
# digits that a count may have, and the kind of column it takes
LENGTHS = (38, 76, None)

Row = dict[str, object]


def pyarrow():
    """The package that writes Parquet.  Errors: InputError where it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise InputError("tables of rows need the package pyarrow: pip install 'mechproof[sweep]'") from None
    return pyarrow


def read(path: Path) -> list[Row]:
    """The rows of a table; whole numbers are int again.  Errors: InputError for a file that is no such table."""
    arrow = pyarrow()
    try:
        table = arrow.parquet.read_table(path, partitioning=None)
    except (OSError, arrow.ArrowException) as error:
        raise InputError(f"table {str(path)!r} cannot be read ({str(error).splitlines()[0]}); "
                         "choose another path, or remove it") from None
    if table.schema not in map(_schema, LENGTHS):
        raise InputError(f"table {str(path)!r} has other columns than a sweep's; choose another path")
    rows = table.to_pylist()
    for row in rows:
        row |= {name: int(row[name]) for name in COUNTS if row[name] is not None}
    return rows


def _schema(digits: int | None):
    """Columns of a table whose counts have at most so many digits."""
    arrow = pyarrow()
    count = {38: arrow.decimal128, 76: arrow.decimal256}.get(digits, lambda _: arrow.string())(digits)
    return arrow.schema([(name, count if kind == "decimal" else kind) for name, kind in KINDS.items()])


def shipped(collection: str):
    """The table of a shipped collection as a pandas DataFrame,
    with the share of inputs found right as column `truth`."""
    import pandas
    table = pandas.DataFrame(read(weights.DATA / "results" / f"{collection}.parquet"))
    return table.assign(truth=[right / tried for right, tried in zip(table.right, table.tried)])


def write(path: Path, rows: Iterable[Row]) -> None:
    """The table, whole or not at all, in order of models and strategies."""
    arrow = pyarrow()
    rows = sorted(rows, key=lambda row: (natural(row["model"]), row["strategy"] or "", row["version"],
                                         row["sha256"] or ""))
    longest = max((len(str(row[name] or 0)) for row in rows for name in COUNTS), default=1)
    digits = next(n for n in LENGTHS if n is None or longest <= n)
    if digits is None:
        rows = [row | {name: str(row[name]) for name in COUNTS if row[name] is not None} for row in rows]
    with weights.whole(path) as part:
        arrow.parquet.write_table(arrow.Table.from_pylist(rows, _schema(digits)), part, compression="zstd")


def natural(name: str) -> list[tuple[int, str]]:
    """max-of-4/9 before max-of-4/10."""
    return [(int(piece), "") if i % 2 else (-1, piece) for i, piece in enumerate(re.split("([0-9]+)", name))]


def noted(journal: Path) -> list[Row]:
    """The rows of a journal; a last line that a stop cut short is taken off the file.
    Errors: InputError for a file that is none."""
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


def truth_hi(row: Row, chance: float = 1e-6) -> Fraction:
    """What no bound may exceed: the share of inputs found right, or where they were sampled the upper end of the
    interval at 1 - chance (Clopper and Pearson's, with the tail of the binomial law in balls)."""
    right, tried = row["right"], row["tried"]
    low, high = Fraction(right, tried), Fraction(1)
    if tried == row["total"] or right == tried:
        return low
    with ctx.workprec(128):
        for _ in range(40):
            middle = (low + high) / 2
            rest = 1 - arb(fmpq(middle.numerator, middle.denominator))
            tail = rest.beta_lower(tried - right, right + 1, regularized=True)
            low, high = (low, middle) if tail < chance else (middle, high)
    return high
