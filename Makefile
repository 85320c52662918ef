# Two commands matter: `make suite` (the main job) and `make test`. Both do all their set-up on a fresh machine.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=

.PHONY: suite test bench setup lint clean

suite: setup
	$(BIN)/blackstart suite $(ARGS)

test: setup
	$(BIN)/python tests/setup_system.py
	$(BIN)/pytest -n 2 --dist loadfile $(ARGS)

bench: setup
	$(BIN)/python -m bench.run $(ARGS)

lint: setup
	$(BIN)/ruff check src tests bench targets tools
	$(BIN)/ruff format --check src tests bench targets tools
	$(BIN)/mypy

setup: $(VENV)/.ready

# A lock makes two first runs at the same time safe; the stamp is written last, so a broken set-up is done again.
$(VENV)/.ready: pyproject.toml requirements.lock
	@flock .setup.lock $(PYTHON) tools/setup_venv.py $(VENV)

clean:
	rm -rf $(VENV) .setup.lock runs
