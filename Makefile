# `make book` builds the book, `make test` checks everything, `make check` what is quick; all set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
# More arguments for pip.
PIP_EXTRA ?=
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: book test lint check notebooks vectors bench fuzz odd linkcheck reproduce clean
.DELETE_ON_ERROR:

book: .venv/ready
	@rm -rf _build/next
	$(BIN)/jupyter-book build . --path-output _build/next -W -n --keep-going
	@rm -rf _build/html && mv _build/next/_build/html _build/html && rm -rf _build/next
	@echo "The book: file://$(CURDIR)/_build/html/index.html"

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadgroup tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -q --nbval --nbval-current-env --nbval-cell-timeout=300 -n 2 --dist loadfile $(NOTEBOOKS)

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

# While one works: lint, and the tests that need neither a browser nor the run of a notebook.
check: lint
	OMP_NUM_THREADS=1 DGML_FUZZ=200 $(BIN)/pytest -q -n 2 --dist loadgroup -m "not slow" tests

# Run every chapter and keep its outputs in the notebook: after a change of code or of checkpoints.
notebooks: .venv/ready
	$(BIN)/python tools/journey.py
	$(BIN)/python tools/here.py
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False $(NOTEBOOKS)

# Write the golden files anew: only after a change of checkpoints.
vectors: .venv/ready
	$(BIN)/python tools/make_vectors.py

# Bytes, seconds and memory of the bitstream beside CompressAI's; DGML_IMAGES chooses the pictures.
bench: .venv/ready
	$(BIN)/python tools/bench.py

# Ten times as many corrupted files as make test decodes.
fuzz: .venv/ready
	DGML_FUZZ=20000 $(BIN)/pytest -q tests/test_damage.py -k a_damaged_file

# Every chapter on every odd picture, where make test takes one for each.
odd: .venv/ready
	DGML_ODD=all $(BIN)/pytest -q -n 2 tests/test_any_picture.py

# Follow every link that leads out of the book; needs the network.
linkcheck: .venv/ready
	$(BIN)/jupyter-book build . --builder linkcheck

# Compare published weights on Kodak image 22 with the reference numbers; needs the network once.
reproduce: .venv/ready
	$(BIN)/python -m dgml reproduce

clean:
	rm -rf _build .pytest_cache .ruff_cache

.venv/ready: requirements.txt requirements-reader.txt
	@$(PYTHON) tools/install.py $(PIP_EXTRA)
