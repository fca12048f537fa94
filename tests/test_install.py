"""What a newcomer installs: a wheel with the weights, and a bare environment that proves in an empty folder."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PINS = dict(line.split("#")[0].strip().split("==") for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line.split("#")[0])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, files.stdout.split("\0")):
        if name.startswith(("mechproof/", "pyproject", "README")) and (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(copy)], check=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_the_weights_and_the_style(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.stat().st_size < 90 * 10**6
    assert {name for name in names if name.endswith(".py")} == {str(p.relative_to(ROOT)) for p in ROOT.glob("mechproof/**/*.py")}
    assert "mechproof/data/max-of-4.0.safetensors" in names and "mechproof/explorable/mechproof.mplstyle" in names
    assert "mechproof/data/results/max-of-4.parquet" in names and not [n for n in names if n.startswith("tests")]


@pytest.mark.slow
def test_a_bare_environment_proves_in_an_empty_folder(wheel, tmp_path):
    """pip install of the project where only the pinned torch (the CPU build) is installed first."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    python = str(tmp_path / "env" / "bin" / "python")
    empty = tmp_path / "empty"
    empty.mkdir()
    for package in (f"torch=={PINS['torch']}", str(wheel)):
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", package], check=True)
    code = "import mechproof as mp; print(mp.prove(mp.load('max-of-4/0'), 'cubic'))"
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(empty)}
    done = subprocess.run([python, "-W", "error", "-c", code], cwd=empty, capture_output=True, text=True, env=clean)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(">= 95.") and list(empty.iterdir()) == []


def test_ranges_in_pyproject_admit_the_pins():
    text = (ROOT / "pyproject.toml").read_text()
    for name in ("torch", "numpy", "safetensors", "python-flint", "matplotlib", "tqdm"):
        low = text.split(f'"{name}>=')[1].split('"')[0]
        as_numbers = lambda v: tuple(int(x) for x in v.split("."))
        assert as_numbers(PINS[name]) >= as_numbers(low)
