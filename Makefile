# `make book` builds the book, `make test` checks everything, `make check` what is quick; all set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
# More arguments for pip.
PIP_EXTRA ?=
# The versions that are installed; `make book LOCK=` takes the newest in the ranges of the requirements.
export LOCK ?= constraints.txt
# make book FORCE=1 executes all chapters; WORKERS=2 two at a time, where it takes one for each core.
FORCE ?=
WORKERS ?=
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))
export HF_HUB_DISABLE_TELEMETRY := 1
# What runs side by side shares the cores, a thread each.
unit nbval check odd: export OMP_NUM_THREADS := 1

# What make checkpoints trains on, for how long, where it keeps its states; PIECE=10 stops after ten minutes.
IMAGES ?= photographs
MINUTES ?= 600
RUN ?= runs/six
PIECE ?=

.PHONY: book test lint unit nbval check notebooks checkpoints vectors bench fuzz odd linkcheck reproduce lock clean
.DELETE_ON_ERROR:

book: .venv/ready
	@$(BIN)/python tools/make_book.py $(if $(FORCE),--force) $(if $(WORKERS),--workers $(WORKERS))

test: lint unit nbval

lint: .venv/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

unit: .venv/ready-dev
	@echo "The tests: ten to twenty minutes on two cores"
	$(BIN)/pytest -q -n 2 --dist loadgroup tests

nbval: .venv/ready-dev
	@echo "Every chapter against its stored outputs: five to ten minutes on two cores"
	$(BIN)/pytest -q --nbval --nbval-current-env --nbval-cell-timeout=300 -n 2 --dist loadfile $(NOTEBOOKS)

# While one works: lint, and the tests that need neither a browser nor the run of a notebook.
check: lint
	DGML_FUZZ=200 $(BIN)/pytest -q -n 2 --dist loadgroup -m "not slow" tests

# Run every chapter and keep its outputs in the notebook: after a change of code or of checkpoints.
notebooks: .venv/ready-dev
	$(BIN)/python tools/journey.py
	$(BIN)/python tools/here.py
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False $(NOTEBOOKS)

# Six checkpoints from a folder of photographs; the same command goes on where the last one stopped.
checkpoints: .venv/ready
	@$(BIN)/python -m dgml.training.six --images $(IMAGES) --run $(RUN) --minutes $(MINUTES) $(if $(PIECE),--piece $(PIECE))

# Write the golden files anew: only after a change of checkpoints.
vectors: .venv/ready
	$(BIN)/python tools/make_vectors.py

# Bytes, seconds and memory of the bitstream beside CompressAI's; DGML_IMAGES chooses the pictures.
bench: .venv/ready
	$(BIN)/python tools/bench.py

# Ten times as many corrupted files as make test decodes.
fuzz: .venv/ready-dev
	DGML_FUZZ=20000 $(BIN)/pytest -q tests/test_damage.py -k a_damaged_file

# Every chapter on every odd picture, where make test takes one for each.
odd: .venv/ready-dev
	DGML_ODD=all $(BIN)/pytest -q -n 2 tests/test_any_picture.py

# Follow every link that leads out of the book; needs the network.
linkcheck: .venv/ready
	$(BIN)/jupyter-book build . --builder linkcheck

# Compare published weights on Kodak image 22 with the reference numbers; needs the network once.
reproduce: .venv/ready
	$(BIN)/python -m dgml reproduce

# Renew constraints.txt: of each package the newest version in the ranges, for Python 3.10 to 3.13.
lock: .venv/ready-dev
	$(BIN)/uv pip compile -q --universal --python-version 3.10 --no-python-downloads --no-header --no-annotate requirements-dev.txt > constraints.part
	@(sed -n '/^#/p' constraints.txt; sed -E "$(IMPLIED)" constraints.part) > constraints.new
	@mv constraints.new constraints.txt && rm constraints.part
# Conditions that pyproject.toml makes uv repeat on every line.
IMPLIED := s/(python_full_version < '3.14'|sys_platform != 'emscripten') and //g; \
	s/ (and|;) (python_full_version < '3.14'|sys_platform != 'emscripten')//g

clean:
	rm -rf _build .pytest_cache .ruff_cache .mypy_cache

.venv/ready: requirements.txt requirements-reader.txt constraints.txt
	@$(PYTHON) tools/install.py $(PIP_EXTRA)

.venv/ready-dev: .venv/ready requirements-dev.txt
	@$(PYTHON) tools/install.py --dev $(PIP_EXTRA)
