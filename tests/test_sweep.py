"""A sweep that is stopped, killed, starved of disk, spread over a cluster or fed with broken files gives the table of one left in peace."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import pytest
import torch

import mechproof as mp
from mechproof import zoo
from mechproof.__main__ import main
from mechproof.zoo import sweep, tables
from mechproof.zoo.sweep import Task, locally, members, tasks
from mechproof.zoo.tables import noted, read, write

TWO = partial(locally, workers=2)
HERE = lambda todo: (task() for task in todo)                           # where workers are not what is tested
SAYS = {"normalization_type": "none", "n_heads": "1"}                   # what a file of weights alone leaves open


def same(rows) -> list[dict]:
    """Rows without what differs from run to run, in one order."""
    return sorted(({k: v for k, v in row.items() if not k.endswith("seconds")} for row in rows), key=str)


@pytest.fixture(scope="module")
def few():
    """A handful of quick rows, and what they are."""
    wanted = tasks(members("max-of-4", "0-2"), ["cubic", "separable-small", "EUPU-max-diff--attn-mean-query+diff--attn-err-svd:rank=2"])
    return wanted, [task() for task in wanted]


def command(path, *more: str, seeds: str = "0") -> list[str]:
    return [sys.executable, "-m", "mechproof", "sweep", "max-of-4", "--seeds", seeds, "--workers", "2", "-o", str(path), *more]


# --- rows and tables

def test_a_row_is_the_bound_with_its_model_version_and_truth(few):
    model, row = mp.load("max-of-4/0"), few[1][0]
    bound = mp.prove(model, "cubic").as_dict()
    assert {k: row[k] for k in bound if not k.endswith("seconds")} == {k: v for k, v in bound.items() if not k.endswith("seconds")}
    assert row["sha256"] == model.sha256 and row["version"] == mp.__version__ and row["error"] is None and set(row) == set(tables.KINDS)
    assert (row["right"], row["tried"]) == (model.metadata["accuracy"]["correct"], row["total"])
    assert few[1][2]["strategy"].endswith("svd:rank=2")


@pytest.mark.parametrize("total", [7, 64**20, 128**30, 64**60])
def test_a_table_keeps_integers_of_any_length(tmp_path, total):
    rows = [Task(f"many/{i}", "ab", "s").row(correct=total - i, total=total, accuracy_lower_bound=0.5, flops=1) for i in (10, 9)]
    write(tmp_path / "t.parquet", [*rows, Task("bad", None, None).failed("first line\nsecond")])
    bad, *found = read(tmp_path / "t.parquet")
    assert [row["correct"] for row in found] == [total - 9, total - 10] and found[0]["unexplained_dimensions"] is None
    assert (bad["error"], bad["correct"], bad["strategy"]) == ("first line", None, None)


def test_all_means_what_prove_means_by_it_and_ids_are_made_whole():
    wanted = tasks(["max-of-10/0"], ["all", "separable:groups=8"])
    listed = [s.id for s in mp.strategies(mp.load("max-of-10/0")) if s.cost <= 2e10]
    assert [task.strategy for task in wanted] == listed and "separable" in listed and "brute_force" not in listed


def test_an_id_is_for_the_models_that_know_it(tmp_path):
    for name in ("max-of-4/0", "pizza-31/0"):
        zoo.save_atomically(tmp_path / f"{name.partition('/')[0]}.safetensors", dict(mp.load(name).tensors), mp.load(name).family.answers)
    wanted = tasks(members(str(tmp_path)), ["cubic", "wheel"])
    assert [(os.path.basename(task.model), task.strategy) for task in wanted] == [
        ("max-of-4.safetensors", "cubic"), ("pizza-31.safetensors", "wheel")]
    with pytest.raises(mp.InputError, match="nearest"):
        tasks(members(str(tmp_path)), ["cubic", "wheeel"])


@pytest.mark.parametrize("seeds, chosen", [("3", [3]), ("0-2,150", [0, 1, 2, 150]), ("4,3-5", [4, 3, 5])])
def test_seeds(seeds, chosen):
    assert members("max-of-4", seeds) == [f"max-of-4/{seed}" for seed in chosen] and len(members("max-of-4")) == 151


# --- what is there is not made again

def never(todo):
    raise AssertionError(f"{len(todo)} rows would be made again")
    yield


def test_only_what_is_missing_is_made(few, tmp_path):
    (wanted, rows), path = few, tmp_path / "t.parquet"
    assert len(sweep.sweep(wanted[:4], path, HERE)) == 4
    assert [row["model"] for row in sweep.sweep(wanted, path)] == [task.model for task in wanted[4:]]
    assert sweep.sweep(wanted, path, never) == [] and same(read(path)) == same(rows)
    assert os.listdir(tmp_path) == ["t.parquet"]


def test_a_torn_journal_is_read_up_to_the_tear(few, tmp_path):
    (wanted, rows), path = few, tmp_path / "t.parquet"
    journal, lines = tmp_path / "t.parquet.journal", [json.dumps(row) for row in rows]
    for torn in ("", lines[3][:1], lines[3][:200], lines[3]):
        journal.write_text("\n".join([*lines[:3], torn]))
        assert [row["model"] for row in sweep.sweep(wanted, path, HERE)] == [row["model"] for row in rows[3:]]
        assert same(read(path)) == same(rows)
        path.unlink()


def test_a_stop_between_table_and_journal_loses_nothing(few, tmp_path):
    (wanted, rows), path = few, tmp_path / "t.parquet"
    write(path, rows[:5])
    (tmp_path / "t.parquet.journal").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "t.parquet.part").write_bytes(b"half a tab")
    (tmp_path / ".t.parquet.mechproof-abcd1234").mkdir()                           # what a writer left that was killed
    assert sweep.sweep(wanted, path, never) == [] and same(read(path)) == same(rows)
    assert sorted(os.listdir(tmp_path)) == ["t.parquet", "t.parquet.part"] and (tmp_path / "t.parquet.part").read_bytes() == b"half a tab"


def test_rows_of_other_weights_or_another_version_are_told_apart(few, tmp_path):
    (wanted, rows), path = few, tmp_path / "t.parquet"
    others = [rows[0] | {"version": "0.0.9"}, rows[1] | {"sha256": "0" * 64}]
    write(path, [*others, *rows[2:]])
    assert [row["strategy"] for row in sweep.sweep(wanted, path, HERE)] == [row["strategy"] for row in rows[:2]]
    assert same(read(path)) == same([*rows, *others])


def test_only_one_sweep_writes_a_table(few, tmp_path):
    with sweep._held(tmp_path / "t.parquet.journal"), pytest.raises(mp.InputError, match="is being written by another sweep"):
        sweep.sweep(few[0], tmp_path / "t.parquet", HERE)
    assert len(sweep.sweep(few[0][:1], tmp_path / "t.parquet", HERE)) == 1


def test_a_table_is_followed_to_where_its_link_points(few, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "t.parquet").symlink_to(tmp_path / "there" / "t.parquet")
    sweep.sweep(few[0][:1], tmp_path / "t.parquet", HERE)
    assert (tmp_path / "t.parquet").is_symlink() and os.listdir(tmp_path / "there") == ["t.parquet"]


@pytest.mark.parametrize("args, says", [
    (["max-of-4", "--seeds", "0-151"], "run from 0 to 150"), (["max-of-4", "--seeds", "0-999999999"], "run from 0 to 150"),
    *((["max-of-4", "--seeds", seeds], "write it like 0-4,7") for seeds in ("3-", "", "5-3,1", "9" * 5000, "\u0663")),
    (["maxof4"], "neither shipped nor a folder"), (["m" * 5000], "neither shipped nor a folder"), (["max-of-4", "--workers", "0"], "give 1 or more"),
    (["EMPTY"], "holds no .safetensors"), (["EMPTY", "--seeds", "3"], "holds no .safetensors"),
    (["max-of-4", "--strategies", "cubicle"], "nearest: cubic"), (["max-of-4", "--strategies", "compact-gram:rank=1\n2"], "out of range"),
    (["max-of-4", "-o", "x.csv"], "does not end in .parquet"),
    (["max-of-4", "-o", "FOLDER"], "is a folder"), (["max-of-4", "-o", "no/x.parquet"], "create it first"),
    (["max-of-4"], "cannot be read"), (["max-of-4", "-o", "OTHER"], "other columns"), (["max-of-4", "-o", "NOTED"], "is not a sweep's"),
    (["max-of-4", "-o", "BROKEN"], "cannot be read")])
def test_bad_input_is_one_line(tmp_path, capsys, args, says):
    import pyarrow.parquet
    empty, bad = tmp_path / "empty", tmp_path / "bad.parquet"
    folder, other, broken, noted = (tmp_path / f"{name}.parquet" for name in ("folder", "other", "broken", "noted"))
    empty.mkdir()
    folder.mkdir()
    pyarrow.parquet.write_table(pyarrow.table({name: ["x"] for name in tables.KINDS}), other)
    broken.with_suffix(".parquet.journal").write_text("no json\n")
    noted.with_suffix(".parquet.journal").write_text("5\n")
    bad.write_bytes(b"no table")
    named = {"EMPTY": empty, "FOLDER": folder, "OTHER": other, "BROKEN": broken, "NOTED": noted}
    args = [str(named.get(arg, arg)) for arg in args]
    assert main(["sweep", "--seeds", "0", "-o", str(bad), *args] if args[:1] == ["max-of-4"] and "--seeds" not in args else
                ["sweep", "-o", str(bad), *args]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and says in error
    assert bad.read_bytes() == b"no table"


def test_a_missing_package_is_said_before_the_work(few, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(mp.InputError, match="pip install 'mechproof.sweep.'"):
        sweep.sweep(few[0], tmp_path / "t.parquet", never)


# --- models and workers that fail

def test_a_model_that_fails_says_why_and_the_rest_goes_on(tmp_path, capsys):
    good, path = tmp_path / "b.safetensors", tmp_path / "t.parquet"
    tensors = dict(mp.load("max-of-4/0").tensors)
    zoo.save_atomically(good, tensors, SAYS)
    (tmp_path / "a.safetensors").write_bytes(b"not tensors")
    zoo.save_atomically(tmp_path / "c.safetensors", tensors | {"W_E": torch.full((64, 32), torch.nan)}, SAYS)
    assert main(["sweep", str(tmp_path), "--strategies", "cubic", "--workers", "1", "-o", str(path)]) == 1
    assert "2 failed" in capsys.readouterr().out
    first, fine, third = read(path)
    assert "InputError: model file" in first["error"] and "not safetensors" in first["error"] and "W_E holds NaN" in third["error"]
    assert first["correct"] is None
    assert fine["error"] is None and fine["right"] is None and fine["correct"] == mp.prove(mp.load("max-of-4/0"), "cubic").correct
    for name in "ac":
        zoo.save_atomically(tmp_path / f"{name}.safetensors", tensors, SAYS)         # mended: the failures are no results
    assert main(["sweep", str(tmp_path), "--strategies", "cubic", "--workers", "1", "-o", str(path)]) == 0
    assert [row["error"] for row in read(path)] == [None] * 3


def test_what_could_not_be_read_for_a_while_leaves_no_trace(tmp_path, capsys):
    model, path = tmp_path / "a.safetensors", tmp_path / "t.parquet"
    zoo.save_atomically(model, dict(mp.load("max-of-4/0").tensors), SAYS)
    run = lambda: main(["sweep", str(tmp_path), "--strategies", "cubic", "--workers", "1", "-o", str(path)])
    good = model.read_bytes()
    assert run() == 0
    model.write_bytes(b"not tensors")
    assert run() == 1 and len(read(path)) == 2
    model.write_bytes(good)
    assert run() == 0 and [row["error"] for row in read(path)] == [None]


class Deadly(Task):
    """A row that kills whoever makes it."""

    def __call__(self):
        os._exit(1)


def test_a_row_that_kills_its_workers_is_given_up_and_no_other_is_blamed(few):
    wanted, rows = few
    deadly = Deadly(*(getattr(wanted[0], name) for name in ("model", "sha256", "strategy")))
    found = {row["model"] + row["strategy"]: row for row in locally([*wanted[1:3], replace(deadly, strategy="deadly"), *wanted[3:]], 2)}
    assert "its worker died 3 times" in found.pop("max-of-4/0deadly")["error"]
    assert same(found.values()) == same(rows[1:])


def test_what_a_dead_worker_held_is_tried_again(few, tmp_path):
    wanted, rows = few

    def killing(coming, total, initial):
        for i, row in enumerate(coming):
            if i == 2:
                multiprocessing.active_children()[0].kill()
            yield row

    sweep.sweep(wanted, tmp_path / "t.parquet", TWO, killing)
    assert same(read(tmp_path / "t.parquet")) == same(rows)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")                                   # distributed's own, about ports and dead workers
def test_a_cluster_with_a_worker_killed_midway_gives_the_same_table(few, tmp_path):
    distributed = pytest.importorskip("distributed")
    wanted, rows = few
    with distributed.LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster, distributed.Client(cluster) as client:

        def killing(coming, total, initial):
            for i, row in enumerate(coming):
                if i == 3:
                    os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
                yield row

        make = partial(sweep.on_cluster, address=cluster.scheduler_address)
        made = sweep.sweep(wanted, tmp_path / "t.parquet", make, killing)
        assert len(made) == len(wanted) and same(read(tmp_path / "t.parquet")) == same(rows)
        deadly = Deadly("max-of-4/0", wanted[0].sha256, "deadly")
        assert "KilledWorker" in next(sweep.on_cluster([deadly], cluster.scheduler_address))["error"]


def test_a_scheduler_that_is_not_there_is_one_line(tmp_path, capsys):
    at = ["--scheduler", "tcp://127.0.0.1:9", "-o", str(tmp_path / "t.parquet")]
    assert main(["sweep", "max-of-4", "--seeds", "0", "--strategies", "cubic", *at]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and os.listdir(tmp_path) == []


# --- stops

def children(pid: int) -> list[int]:
    """The processes that a process has started, by /proc."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                if int(file.read().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(name))
        except OSError:
            pass
    return found


def gone(pids: list[int]) -> bool:
    """Whether these processes end within some seconds."""
    for _ in range(100):
        if not any(os.path.exists(f"/proc/{pid}") for pid in pids):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.exhaustive)])
def test_a_killed_sweep_resumed_gives_the_same_table(tmp_path, kills):
    start = time.perf_counter()
    subprocess.run(command(tmp_path / "whole.parquet"), check=True)
    length, draw = time.perf_counter() - start, random.Random(kills)
    undisturbed = same(read(tmp_path / "whole.parquet"))
    for i in range(kills):
        path, moment = tmp_path / f"{i}.parquet", draw.uniform(0.2, 1.0) * length
        running = subprocess.Popen(command(path))
        try:
            running.wait(moment)
        except subprocess.TimeoutExpired:
            started = children(running.pid)
            running.kill()
            running.wait()
            assert gone(started)
        before = [*(read(path) if path.exists() else []), *noted(path.with_suffix(".parquet.journal"))]
        assert all(row in undisturbed for row in same(before)), f"kill {i} after {moment:.2f} s"
        subprocess.run(command(path), check=True)
        assert same(read(path)) == undisturbed, f"kill {i} after {moment:.2f} s"


@pytest.mark.parametrize("rows", [0, 5])
def test_an_interrupt_leaves_a_table_and_nothing_else(tmp_path, rows):
    """Ctrl-C goes to all processes of a terminal: while workers still import, and while they work."""
    path = tmp_path / "t.parquet"
    journal = path.with_suffix(".parquet.journal")
    running = subprocess.Popen(command(path), stderr=subprocess.PIPE, text=True, start_new_session=True)
    while running.poll() is None and (len(children(running.pid)) < 3 or (rows and (not journal.exists() or len(noted(journal)) < rows))):
        time.sleep(0.05)                                    # two workers, and the process that looks after what they share
    started = children(running.pid)
    os.killpg(running.pid, signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130 and said == "" and len(started) >= 3 and gone(started)
    assert set(os.listdir(tmp_path)) <= {"t.parquet"} and (not rows or rows <= len(read(path)) < 110)


def test_a_row_that_is_noted_is_in_the_table(few, tmp_path, monkeypatch):
    """Also where an interrupt comes between the disk and the list of what was made."""
    (wanted, rows), calls = few, []

    def interrupted(fd):
        calls.append(fd)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(wanted, tmp_path / "t.parquet", HERE)
    assert same(read(tmp_path / "t.parquet")) == same(rows[:3]) and os.listdir(tmp_path) == ["t.parquet"]


def test_a_full_disk_is_one_line_and_what_was_written_is_there(tmp_path):
    path = tmp_path / "t.parquet"
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))          # a file takes no more, as on a full disk
    found = subprocess.run(command(path, "--strategies", "cubic", seeds="0-19"), capture_output=True, text=True, preexec_fn=limit,
                           env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert found.returncode == 2 and found.stderr.count("\n") == 1
    assert "cannot be written" in found.stderr and "make room" in found.stderr
    rows = noted(path.with_suffix(".parquet.journal"))
    assert 5 <= len(rows) < 20 and not path.exists()
    made = subprocess.run(command(path, "--strategies", "cubic", seeds="0-19"), capture_output=True, text=True, check=True).stdout
    assert f"{20 - len(rows)} of them made now" in made and len(read(path)) == 20
