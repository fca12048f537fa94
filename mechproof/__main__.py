"""The command line: models | strategies | prove | certify | verify | convert | train | edit | sweep;
`COMMAND --help` says what each takes.

MODEL is a shipped name (`max-of-4/123`) or the path of a .safetensors or .pth file.  Bad input gets one line on stderr
and exit status 2.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path

from .proof.bound import digits_lo, short, short_int
from .proof.family import InputError
from .proof.names import SAID


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are one line."""

    def error(self, message: str):
        raise InputError(f"{message}; see `{self.prog} --help`")


def _print_table(rows: list[dict], as_json: bool, line) -> None:
    print(json.dumps(rows, indent=1) if as_json else "\n".join(line(row) for row in rows))


def models(args) -> None:
    from . import zoo

    def accuracy(row: dict) -> str:
        found = row["accuracy"]
        if "correct" in found:
            return f"{short_int(found['correct'])} of {short_int(found['total'])} inputs right, exactly"
        return f"{found['lo']:.5f} to {found['hi']:.5f} ({found['confidence']:.0%} interval, sampled)"

    _print_table(zoo.models(), args.json, lambda row: f"{row['name']:24s} {accuracy(row)}")


def model_of(args):
    """The model that a command is about, and what its file leaves out."""
    import mechproof as mp
    said = {key: getattr(args, key) for key in SAID}
    model = mp.load(args.model, **{key: value for key, value in said.items() if value is not None})
    if os.path.isfile(os.path.expanduser(args.model)):
        from . import zoo
        notes = filter(None, [repr(model), model.metadata.get("read_as"), zoo.sampled(model)])
        args.notes = "; ".join(notes)
    return model


def strategies(args) -> None:
    import mechproof as mp
    rows = [{"id": s.id, "label": s.label, "family": s.family, "cost": s.cost,
             "parameters": {name: p.as_dict() for name, p in s.parameters.items()}}
            for s in mp.strategies(model_of(args))]
    _print_table(rows, args.json, lambda row: f"{row['id']}  ({row['label']}; about {short(row['cost'], 'FLOP')})")


def prove(args) -> None:
    from tqdm import tqdm

    import mechproof as mp

    from .proof.proving import moderate
    model = model_of(args)
    if args.strategy != "all":
        bound = mp.prove(model, args.strategy, args.rank)
        return print(json.dumps(bound.as_dict(), indent=1) if args.json
                     else f"{bound.model} · {bound.strategy}\n{bound}")
    bounds = []
    for s in tqdm(moderate(model), disable=None, unit="proof"):
        bounds.append(mp.prove(model, s.id, args.rank if "rank" in s.parameters else None))
    _print_table([b.as_dict() for b in bounds], args.json,
                 lambda row: f"{digits_lo(row['accuracy_lower_bound'], 6)}  {short(row['flops'], 'FLOP'):>12s}  "
                             f"{row['strategy']}")


def output(args, suffix: str) -> Path:
    """Where to write, if that can be written to."""
    path = Path(args.output)
    if not os.path.isdir(path.parent):
        raise InputError(f"output {args.output!r} is in a folder that does not exist; create it first")
    if path.suffix != suffix:
        raise InputError(f"output {args.output!r} does not end in {suffix}; that is all that this writes")
    if os.path.isdir(path) or not args.output.isprintable():
        raise InputError(f"output {args.output!r} is a folder, or a name that is no text; choose another")
    return path


def certify(args) -> None:
    from .zoo.certificate import certify
    path = output(args, ".json")
    bound = certify(model_of(args), args.strategy, path, args.rank)
    print(f"{path}: {bound}")


def verify(args) -> int:
    """Exit status 0 proved, 1 refused, 2 unreadable; a model in a file is checked without torch."""
    from . import verifier
    if args.model.endswith(".safetensors") or Path(args.model).is_file():
        verdict = verifier.verify(args.certificate, args.model)
    else:
        from . import zoo
        model = zoo.load(args.model)
        names = {"n_ctx": str(model.sizes.get("n_ctx", ""))} | zoo.told(model)
        tensors = {name: t.numpy() for name, t in model.tensors.items()}
        verdict = verifier.verify_tensors(args.certificate, tensors, names)
    print(verdict.line, file=sys.stderr if verdict.code == 2 else sys.stdout)
    return verdict.code


def convert(args) -> None:
    from . import zoo
    path, model = output(args, ".safetensors"), model_of(args)
    zoo.save_atomically(path, model.tensors, zoo.told(model))
    print(f"{path}: {zoo.load(path)}")


def edit(args) -> None:
    from . import zoo
    path, model = output(args, ".safetensors"), model_of(args)
    if args.kind not in model.family.edits:
        raise InputError(f"kind {args.kind!r} is no edit of {model.family.name} models; expected one of: "
                         f"{', '.join(model.family.edits) or 'none'}")
    zoo.save_atomically(path, *model.family.edits[args.kind](model))
    print(f"{path}: {zoo.load(path).sha256}, parent {model.sha256}")


def train(args) -> None:
    from tqdm import tqdm

    from . import zoo
    family, path = zoo.family_of_collection(args.collection), output(args, ".safetensors")
    if not 0 <= args.seed < 2**63:
        raise InputError(f"seed {args.seed} is out of range; expected a whole number from 0 to {2**63 - 1}")
    settings = family.collections[args.collection]
    tensors = family.train(settings, args.seed, progress=partial(tqdm, disable=None, unit="step"))
    said = family.answers | dict(family.tells(settings))
    zoo.save_atomically(path, tensors, said | {"collection": args.collection, "seed": str(args.seed),
                                               "recipe": json.dumps(family.recipe_of(args.collection))})
    print(f"{path}: {zoo.load(path).sha256}")


def sweep(args) -> int:
    """Exit status 0 when every row is there, 1 when some say an error."""
    from tqdm import tqdm

    from .zoo.sweep import locally, members, on_cluster, sweep, tasks
    path, wanted = output(args, ".parquet"), tasks(members(args.collection, args.seeds), args.strategies)
    if args.workers < 1:
        raise InputError(f"workers {args.workers} are none; give 1 or more")
    here = args.scheduler is None
    make = partial(locally, workers=args.workers) if here else partial(on_cluster, address=args.scheduler)
    made = sweep(wanted, path, make, partial(tqdm, disable=None, unit="proof"))
    failed = [row for row in made if row["error"]]
    says = f", {len(failed)} failed: column `error` says why" if failed else ""
    print(f"{path}: {len(wanted)} rows asked for, {len(made)} of them made now{says}")
    return int(bool(failed))


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog="mechproof", description=__doc__.splitlines()[0])
    commands = top.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    def command(function, help: str, *names: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(function.__name__, help=help)
        sub.set_defaults(run=function)
        for name in names:
            sub.add_argument(name)
        if names == ("model",):
            told = sub.add_argument_group("what a file may have to be told")
            for key, said in SAID.items():
                told.add_argument(f"--{key.replace('_', '-')}", metavar="...", help=said.says)
        return sub

    command(models, "list the models that ship").add_argument("--json", action="store_true")
    command(strategies, "list the ways to prove", "model").add_argument("--json", action="store_true")
    sub = command(prove, "prove a lower bound on a model's accuracy", "model")
    sub.add_argument("--strategy", required=True, help="an id, or `all`")
    sub.add_argument("--rank", type=int, help="directions peeled before the rest is bounded")
    sub.add_argument("--json", action="store_true")
    sub = command(certify, "prove a bound and write it down with all that a checker needs", "model")
    sub.add_argument("--strategy", required=True, help="an id that has certificates")
    sub.add_argument("--rank", type=int, help="directions peeled before the rest is bounded")
    sub.add_argument("-o", "--output", required=True, help="a .json file")
    command(verify, "derive a certificate's claim anew: exit 0 proved, 1 refused, 2 unreadable", "certificate", "model")
    sub = command(convert, "write somebody's file, of whatever layout, as one that all commands take as it is", "model")
    sub.add_argument("-o", "--output", required=True, help="a .safetensors file")
    sub = command(edit, "write a copy of a model that is stripped, projected or polished", "model")
    sub.add_argument("--kind", required=True, help="stripped, projected (Max-of-K) or polished (pizza)")
    sub.add_argument("-o", "--output", required=True)
    sub = command(train, "train one model by the recipe", "collection")
    sub.add_argument("--seed", type=int, required=True)
    sub.add_argument("-o", "--output", required=True)
    sub = command(sweep, "every strategy on every model of a shipped collection, or of a folder, as a table; "
                         "resumes where it stopped", "collection")
    sub.add_argument("--seeds", help="like 0-150 or 0,3,7; all when left out")
    sub.add_argument("--strategies", nargs="+", default=["all"], metavar="ID", help="ids, or `all` (the default)")
    sub.add_argument("-o", "--output", required=True, help="a .parquet file")
    sub.add_argument("--workers", type=int, default=os.cpu_count(),
                     help="processes, one thread each; all cores when left out")
    sub.add_argument("--scheduler", metavar="ADDRESS", help="a Dask cluster to work on in their place")
    return top


def main(argv: list[str] | None = None) -> int:
    sys.set_int_max_str_digits(0)                           # counts have as many digits as they need
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")            # a terminal without a middle dot gets a question mark
    try:
        args = parser().parse_args(argv)
        status = args.run(args) or 0
        if hasattr(args, "notes"):                          # how a file was read, beside what was asked
            print(args.notes, file=sys.stderr)
        return status
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, BrokenPipeError):
        return 130


if __name__ == "__main__":
    sys.exit(main())
