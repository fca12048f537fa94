"""Every annotated shape and type, checked while other tests run (jaxtyping and beartype on the whole library)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOOK = "--jaxtyping-packages=mechproof,beartype.beartype"


def under_the_hook(*argv: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", HOOK, *argv],
                          cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_shapes_hold_while_the_library_works():
    done = under_the_hook("tests/test_product_bounds.py", "tests/test_max_of_k.py",
                          "-m", "not slow and not exhaustive", "-k", "not hundred and not authors and not 102")
    assert done.returncode == 0, done.stdout[-3000:]
    done = under_the_hook("tests/test_separable.py", "-k", "tier or walks or two_tokens or parameters or edits")
    assert done.returncode == 0, done.stdout[-3000:]
    for file in ("tests/test_heads.py", "tests/test_one_layer.py"):
        done = under_the_hook(file, "-m", "not slow and not exhaustive", "-k", "case_says or levels or two_families or normalized or can_do_it")
        assert done.returncode == 0, done.stdout[-3000:]
    done = under_the_hook("tests/test_pizza.py", "-k", "errs or settled or waves or budget or one_by_one or by_moments or folded or without_the_sign")
    assert done.returncode == 0, done.stdout[-3000:]
    done = under_the_hook("tests/test_permutations.py", "-k", "by_hand or half_trained or margins or twice or brute_force", "-m", "not slow")
    assert done.returncode == 0, done.stdout[-3000:]
    done = under_the_hook("tests/test_groups.py", "-k", "hand or names or refused or training")
    assert done.returncode == 0, done.stdout[-3000:]
    done = under_the_hook("tests/test_noise.py", "-k", "peels or nulls or certifies_a or replaced or chain or reckoned", "-m", "not slow")
    assert done.returncode == 0, done.stdout[-3000:]
    done = under_the_hook("tests/test_superposition.py", "-k", "no_bound or worst or margins or chance or zone or wires", "-m", "not slow")
    assert done.returncode == 0, done.stdout[-3000:]


def test_the_hook_finds_a_wrong_shape(tmp_path):
    """The check above can fail: a call with a wrong shape is refused under the hook, and only there."""
    test = tmp_path / "test_wrong.py"
    test.write_text("import torch\nfrom mechproof.max_of_k.counting import count_sequences\n"
                    "def test_wrong():\n    count_sequences(torch.zeros(2, 3, 4, dtype=torch.long), 3)\n")
    done = under_the_hook(str(test))
    assert done.returncode == 1 and "TypeCheckError" in done.stdout
