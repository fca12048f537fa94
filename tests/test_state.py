"""A theorem does not depend on who called: whatever state a process or its threads are in, the same bound to the last input, or one line.

`STATES` lists them in one place; a new setting of torch is one more line.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache, partial

import numpy as np
import pytest
import torch
from conftest import KINDS, small_model
from flint import ctx
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import mechproof as mp
from mechproof import zoo
from mechproof.proof.state import SETTINGS, own_state
from mechproof.verifier import state as verifiers
from mechproof.verifier import verify_tensors
from mechproof.zoo.certificate import certificate

TINY = 2.0**-149
STRATEGIES = ("brute_force", "cubic", "exact", "separable-small", "compact-gram:qk_rank=1,eu_rank=1,ov_rank=1", "monte_carlo",
              "EUPU-max-diff--attn-mean-query+diff--attn-err-svd")


@contextmanager
def set_to(get: Callable, set_: Callable, value) -> Iterator[None]:
    """A setting of the process, and what it was before afterwards."""
    before = get()
    set_(value)
    try:
        yield
    finally:
        set_(before)


def flushing() -> AbstractContextManager:
    return set_to(lambda: False, torch.set_flush_denormal, True)


@contextmanager
def flushing_workers() -> Iterator[None]:
    """Threads of OpenMP that were started while small numbers were flushed keep doing it."""
    with set_to(torch.get_num_threads, torch.set_num_threads, 2):
        torch.set_flush_denormal(True)
        torch.ones(10**6).exp().sum()
        torch.set_flush_denormal(False)
        yield


@contextmanager
def upward() -> Iterator[None]:
    libm, before = ctypes.CDLL(None), None
    before = libm.fegetround()
    libm.fesetround(0x800)                                               # FE_UPWARD
    try:
        yield
    finally:
        libm.fesetround(before)


@lru_cache
def fast_math(folder: str) -> str:
    """A shared object as gcc -ffast-math makes them: when it is loaded, the thread flushes small numbers."""
    source = f"{folder}/fast.c"
    with open(source, "w") as file:
        file.write("#include <xmmintrin.h>\n__attribute__((constructor)) static void fast(void) { _mm_setcsr(_mm_getcsr() | 0x8040); }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-ffast-math", "-o", f"{folder}/fast.so", source], check=True)
    return f"{folder}/fast.so"


@contextmanager
def fast_library(folder: str) -> Iterator[None]:
    handle = ctypes.CDLL(fast_math(folder))
    torch.set_flush_denormal(True)                                       # a second loading would run no constructor
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        del handle


def default(value: torch.dtype) -> Callable:
    return lambda: set_to(torch.get_default_dtype, torch.set_default_dtype, value)


STATES: dict[str, Callable[[], AbstractContextManager]] = {
    "as it is": nullcontext,
    "flushing": flushing, "flushing in the workers": flushing_workers,
    "default float64": default(torch.float64), "default float16": default(torch.float16), "default bfloat16": default(torch.bfloat16),
    "default device": lambda: set_to(lambda: None, torch.set_default_device, "meta"),
    "a device's block": lambda: torch.device("meta"),
    "two threads": lambda: set_to(torch.get_num_threads, torch.set_num_threads, 2),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode, "no gradients": torch.no_grad,
    "anomalies": torch.autograd.detect_anomaly,
    "float32 products in bfloat16": lambda: set_to(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"),
    "newer settings of torch": lambda: set_to(lambda: torch.backends.mkldnn.matmul.fp32_precision,
                                              partial(setattr, torch.backends.mkldnn.matmul, "fp32_precision"), "bf16"),
    "deterministic": lambda: set_to(torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True),
    "flint at 20 bits": lambda: set_to(lambda: ctx.prec, partial(setattr, ctx, "prec"), 20),
    "flint at 3000 bits": lambda: set_to(lambda: ctx.prec, partial(setattr, ctx, "prec"), 3000),
    "numpy raises": lambda: np.errstate(all="raise"),
    "another mode of torch": lambda: FlopCounterMode(display=False), "tensors that are none": FakeTensorMode,
    "rounding upward": upward,
}
REFUSED = {"a device's block", "another mode of torch", "tensors that are none", "rounding upward"}


def models(folder) -> list[str]:
    """Twenty files of weights: ordinary, smaller than any normal float32, and huge."""
    paths = []
    for seed in range(20):
        model, scale = small_model(seed, KINDS[seed % len(KINDS)]), (1.0, 2.0**-130, 1e20, 2.0**-148)[seed % 4]
        tensors = {name: tensor * (scale if name in ("W_U", "W_E")[: 1 + (seed % 2)] else 1.0) for name, tensor in model.tensors.items()}
        paths.append(str(folder / f"{seed}.safetensors"))
        zoo.save_atomically(folder / f"{seed}.safetensors", tensors, model.family.answers)
    return paths


def proved(path: str, seed: int) -> list[tuple]:
    """What is proved of a file, with every kind of proof in turn; everything that a Bound says but seconds, and one input's margin."""
    model, said = mp.load(path), []
    for strategy in (STRATEGIES[seed % 7], STRATEGIES[(seed + 3) % 7]):
        strategy = strategy if "rank" not in strategy or min(model.sizes["d_model"], model.sizes["d_head"]) else "separable"
        bound = mp.prove(model, strategy)
        said.append((model.sha256, bound.strategy, bound.correct, bound.total, bound.flops, bound.why([0] * model.sizes["n_ctx"]).margin_lo))
    return said


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    paths = models(tmp_path_factory.mktemp("models"))
    return [(path, seed, proved(path, seed)) for seed, path in enumerate(paths)]


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("name", STATES)
def test_the_same_bound_in_every_state_or_one_line(files, name):
    settings = [setting.get() for setting in SETTINGS]
    for path, seed, expected in files:
        with STATES[name]():
            try:
                found = proved(path, seed)
            except mp.InputError as error:
                found = str(error)
        if name in REFUSED:
            assert found.startswith("the state of this process: ") and "\n" not in found, found
        else:
            assert found == expected, path
    assert [setting.get() for setting in SETTINGS] == settings           # and everything is as it was


@pytest.mark.parametrize("name", [name for name in STATES if name in REFUSED or "flush" in name or "flint" in name or "numpy" in name])
def test_the_verifier_in_every_state(name):
    """The same verdict, or a refusal: what it cannot set it refuses, since it has nothing but numpy."""
    contents = [(small_model(seed, kind), certificate(small_model(seed, kind), "separable")[0]) for seed, kind in ((0, "able"), (3, "exact ties"))]
    for model, content in contents:
        arrays = {key: x.numpy() for key, x in model.tensors.items()}
        plain = verify_tensors(content, arrays, {})
        with STATES[name]():
            found = verify_tensors(content, arrays, {})
        changed = name in ("flushing", "rounding upward")
        assert found.line.startswith("refused: state: ") if changed else found == plain, found


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler to make a shared object with -ffast-math")
def test_a_package_built_with_fast_math(files, tmp_path_factory):
    """Loaded into the process, it makes the thread flush: the library sets that back, the verifier refuses."""
    folder = str(tmp_path_factory.mktemp("fast"))
    model = small_model(0, "able")
    content, arrays = certificate(model, "separable")[0], {key: x.numpy() for key, x in model.tensors.items()}
    with fast_library(folder):
        assert [proved(path, seed) for path, seed, _ in files[:8]] == [expected for *_, expected in files[:8]]
        assert verify_tensors(content, arrays, {}).code == 1
    assert verify_tensors(content, arrays, {}).code == 0


@pytest.mark.filterwarnings("ignore:Dynamo does not know")
def test_what_compiles_or_transforms_is_refused():
    model = small_model(0, "able")

    def correct(x):
        return x + mp.prove(model, "cubic").correct

    for run in (lambda: torch.func.vmap(correct)(torch.ones(2)), lambda: torch.jit.trace(correct, torch.ones(2)),
                lambda: torch.compile(correct, backend="eager")(torch.ones(2))):
        with pytest.raises(mp.InputError, match="^the state of this process: (torch.compile|torch.jit.trace|a transform)[^\n]* at work; call this"):
            run()


def test_another_thread_that_sets_something_is_noticed():
    with pytest.raises(mp.InputError, match="^the state of this process: the default dtype was set meanwhile"), own_state():
        thread = threading.Thread(target=torch.set_default_dtype, args=(torch.float64,))
        thread.start()
        thread.join()
    torch.set_default_dtype(torch.float32)
    with pytest.raises(verifiers.Refused, match="another thread set the precision"), verifiers.exact_state():
        ctx.prec = 20
    assert ctx.prec == 53


def test_the_state_is_left_as_it_was_when_something_fails():
    with set_to(torch.get_default_dtype, torch.set_default_dtype, torch.float64), pytest.raises(ZeroDivisionError), own_state():
        assert torch.get_default_dtype() == torch.float32
        raise ZeroDivisionError
    with own_state(), own_state():
        assert torch.get_num_threads() == 1
