# `make book` builds the book, `make test` checks everything; both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
# More arguments for pip, for instance an index that has torch without CUDA (README.md).
PIP_EXTRA ?=
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: book test notebooks vectors bench fuzz linkcheck reproduce clean
.DELETE_ON_ERROR:

book: .venv/ready
	@rm -rf _build/html _build/jupyter_execute
	$(BIN)/jupyter-book build . -W -n --keep-going
	@echo "The book: file://$(CURDIR)/_build/html/index.html"

test: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/pytest -q -n 2 --dist loadgroup tests
	$(BIN)/pytest -q --nbval --nbval-current-env --nbval-cell-timeout=300 -n 2 --dist loadfile $(NOTEBOOKS)

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

# Follow every link that leads out of the book; needs the network.
linkcheck: .venv/ready
	$(BIN)/jupyter-book build . --builder linkcheck

# Compare published weights on Kodak image 22 with the reference numbers; needs the network once.
reproduce: .venv/ready
	$(BIN)/python reproduce.py

clean:
	rm -rf _build .pytest_cache .ruff_cache

.venv/ready: requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	  sys.exit(0 if (3, 10) <= v <= (3, 13) else f"Python 3.10 to 3.13 is needed, {sys.executable} is {v[0]}.{v[1]}; try make PYTHON=python3.12")'
	@echo "Setting up .venv (some minutes at the first time)"
	@rm -rf .venv && $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(PIP_EXTRA) -r requirements.txt
	$(BIN)/python -m pip check
	@touch $@
