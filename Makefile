# `make book` and `make test` are all that a newcomer needs; everything else is made of the same pieces.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# many small operations: more threads only get into each other's way
export OMP_NUM_THREADS ?= 1
export PYTHONWARNINGS ?= ignore

.PHONY: book test lab exhaustive lint clean
.DELETE_ON_ERROR:

book: $(READY)
	$(BIN)/python book/pack_verifier.py
	$(BIN)/python book/pack_notebooks.py
	$(BIN)/jupyter-book build . -W --keep-going -q
	@echo "The book is ready: open file://$(CURDIR)/_build/html/index.html"

test: lint book
	$(BIN)/python -m pytest tests -n 2 --dist worksteal -m "not exhaustive"
	MECHPROOF_MODE=page $(BIN)/python -m pytest --nbval book

lab: $(READY)
	$(BIN)/jupyter trust book/*.ipynb
	$(BIN)/jupyter lab book/max_of_k.ipynb

exhaustive: $(READY)
	$(BIN)/python benchmarks/sweep.py
	$(BIN)/python benchmarks/counting.py
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python -m pytest tests -n 2 -m exhaustive

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy

$(READY): requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf _build build/lib build/bdist*
