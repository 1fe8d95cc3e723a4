# `make demo` and `make test` do everything on a fresh machine; they need Python 3.10+ and a package index, no model hub.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
TORCH ?= 2.13.0
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
OFFLINE = HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1

.PHONY: demo test lint types notebooks docs bench audit fuzz install clean

demo: install  ## Ask the example documents, answered by the demo checkpoint
	@echo
	@$(OFFLINE) PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

test: install $(VENV)/.web  ## Run the tests
	$(OFFLINE) $(BIN)/python -m pytest

lint: install  ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install  ## Check types
	$(BIN)/mypy

notebooks: install  ## Run the notebooks from top to bottom and compare their outputs
	$(OFFLINE) $(BIN)/python -m pytest tests/notebooks

docs: install  ## Build the documentation as a site in build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: install  ## Run the benchmarks of the CPU and print their tables (2.5 GB of temporary files)
	$(OFFLINE) $(BIN)/python -m benchmarks $(BENCH)

audit: install  ## Look the installed packages up among known vulnerabilities
	@$(PYTHON) -m venv $(VENV)/audit && $(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check "pip-audit>=2.9" \
	|| { echo "audit: not done, pip-audit could not be installed"; exit 0; }; \
	$(VENV)/audit/bin/python -m tools.audit --path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

fuzz: install  ## Fuzz what reads files and messages of strangers, SECONDS (60) for each target
	$(OFFLINE) $(BIN)/python -m tools.fuzz --seconds $(or $(SECONDS),60)

install: $(VENV)/.installed

# The CPU build of torch where there is no NVIDIA GPU (the default build brings gigabytes of CUDA).
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (some minutes the first time)"
	@if nvidia-smi -L >/dev/null 2>&1 || [ "$$(uname)" = Darwin ]; then $(PIP) torch==$(TORCH); \
	else $(PIP) torch==$(TORCH)+cpu 2>/dev/null || $(PIP) torch==$(TORCH)+cpu --index-url $(TORCH_CPU_INDEX); fi
	@$(PIP) --editable ".[dev]"
	@touch $@

# The vision tests compare with transformers' processors, whose pixels are the reference's with Pillow 13 only. Gradio asks
# for an older one, and runs with this.
$(VENV)/.web: $(VENV)/.installed
	@$(PIP) "gradio>=6.31" && $(PIP) --no-deps --upgrade "pillow>=13"
	@touch $@

clean:  ## Remove what was installed and made here
	rm -rf $(VENV) .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build/docs
