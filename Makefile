# The two commands a newcomer needs are `make demo` and `make test`; each sets everything up first.
# PYTHON says which Python to use (a version or a path); without it, uv finds one or brings its own.
PYTHON ?=
DEVICE ?= cpu
VENV ?= .venv
BIN := $(VENV)/bin
LOCK := requirements-$(DEVICE).lock
READY := $(VENV)/.ready-$(DEVICE)
UV = $(firstword $(wildcard $(VENV)/uv/bin/uv) uv)
# Packages that a lock file must not name: the first three break `import transformers` under a CPU build of torch,
# triton is of no use there, and fasttext-predict installs over fasttext's own files.
BROKEN_ON_CPU := torchvision torchaudio torchcodec triton
BROKEN := fasttext-predict fasttext-predict-v2 robust-downloader colorlog

.PHONY: setup demo study test test-slow test-gpu lint format docs lock models clean

setup: $(READY)

$(READY): $(LOCK) pyproject.toml
	@if command -v python3 >/dev/null; then python3 .ci/setup.py $(DEVICE) $(VENV) $(PYTHON); \
	elif command -v uv >/dev/null; then uv run --no-project .ci/setup.py $(DEVICE) $(VENV) $(PYTHON); \
	else echo "setup: there is neither Python nor uv on this machine; install either, for example: sudo apt-get install python3-venv python3-dev g++" >&2; exit 1; fi
	@touch $@

demo: setup
	$(BIN)/factory demo

# Five seeds of the whole recipe on the microworld, with tables: over half an hour on two cores. It goes on after a stop.
study: setup
	$(BIN)/python -m tests.benchmarks.study build/study

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: setup
	$(BIN)/python -m pytest -m slow

# What only a GPU can show, on a machine that has one (make setup DEVICE=gpu).
test-gpu: setup
	$(BIN)/python -m pytest -m gpu

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry schemas warehouse factory flows
	$(BIN)/deptry tests --exclude '^$$' --ignore DEP002,DEP004

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The handbook, in site/: it needs no network to be read. Broken links and warnings fail.
docs: setup
	$(BIN)/python -c "import zensical" 2>/dev/null || $(BIN)/python -m pip install --quiet "zensical>=0.0.73"
	$(BIN)/python -m flows.handbook

# Trains the microworld's models from scratch (the shipped ones were made by this command).
models: setup
	$(BIN)/python -m factory.microworld.train

# Resolves both lock files anew, for every supported Python. The CPU packages want a CPU build of torch, whose own local
# version no index need offer: plain torch is asked for, and the CUDA packages that it would bring are left out, as is
# what only other systems need.
RESOLVE = $(UV) pip compile pyproject.toml --quiet --universal --python-version 3.11 --no-header --no-annotate --extra dev
lock: setup
	echo 'torch==2.13.0' > $(VENV)/override.txt
	$(RESOLVE) --extra cpu --override $(VENV)/override.txt \
		$(foreach name,$(BROKEN) $(BROKEN_ON_CPU),--no-emit-package $(name)) --output-file requirements-cpu.lock
	$(RESOLVE) --extra gpu $(foreach name,$(BROKEN),--no-emit-package $(name)) --output-file requirements-gpu.lock
	sed -i -E '/^(nvidia-|cuda-)/d' requirements-cpu.lock
	sed -i -E "s/\+cpu//; /; [a-z_]+ == '(s390x|win32)'$$/d; /and sys_platform == 'emscripten'$$/d" requirements-*.lock

clean:
	rm -rf $(VENV) lake exports models build site docs/reference
