# Two commands: `make chat` and `make test`. Each makes the environment that it needs; nothing is
# installed outside this folder, except models, which go to the user's data folder.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# Asked only when the usual index would send the CUDA build of torch: gigabytes that nothing here uses
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt
STAMPS := $(VENV)/stamps
# two processes; to see one test at work: make test ARGS="-n 0 tests/…"
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: chat test check lint format docs bench clean

chat: $(STAMPS)/chat
	@$(BIN)/sparsechat models pull --if-missing
	@$(BIN)/sparsechat chat $(ARGS)

test: $(STAMPS)/test lint
	@$(BIN)/sparsechat models pull --if-missing
	@$(BIN)/sparsechat models pull --if-missing minilm
	$(PYTEST) $(ARGS)

check: $(STAMPS)/test lint
	$(PYTEST) -m "not slow and not parity" $(ARGS)

lint: $(STAMPS)/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMPS)/test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMPS)/test
	$(BIN)/python -m tests.models_table

bench: $(STAMPS)/test
	$(BIN)/python -m benchmarks.decode $(ARGS)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

# a recent pip, because older ones download whole wheels to say what they would install
$(STAMPS)/venv:
	@echo "making the environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sparsechat needs Python 3.11 or later; this is " + sys.version.split()[0] + ". Name another: make chat PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/chat $(STAMPS)/test: $(STAMPS)/%: pyproject.toml constraints.txt | $(STAMPS)/venv
	@echo "installing sparsechat [$*]; the first time this takes a minute or two"
	@if $(PIP) --dry-run --report - ".[$*]" | grep -q '"name": "nvidia-'; then \
		echo "torch: the CPU build, from $(TORCH_INDEX)"; \
		$(PIP) --extra-index-url $(TORCH_INDEX) --editable ".[$*]"; \
	else \
		$(PIP) --editable ".[$*]"; \
	fi
	@touch $@
