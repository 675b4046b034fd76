PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# --prefer-binary: a release that has a wheel beats a newer one that must be compiled.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --prefer-binary

# What builds the image with `make image-test`: called with a tag, the context and further arguments of `docker build`.
BUILD_IMAGE ?= $(firstword $(wildcard ../shared/tools/build-image.sh) docker)

# Packages of npm: for the tests of RunPod's JavaScript client, and for the TypeScript declaration.
NODE := tests/integration/javascript clients/typescript

.DEFAULT_GOAL := help

.PHONY: help run serve test test-fast release-check fuzz soak attack image-test bench bench-start bench-loop bench-batching bench-options bench-words bench-hours gpu-check dry-run eval eval-compare embedded-model measure pictures openapi lint format lock clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.run ## Transcribe the bundled clip, or yours with AUDIO=file-or-URL.
	@$(BIN)/python -m parakeet_worker $${AUDIO:+-- "$$AUDIO"}

serve: $(VENV)/.run ## Answer POST /runsync on http://localhost:8000.
	$(BIN)/python handler.py --rp_serve_api

test: $(VENV)/.dev ## Run the tests.
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-fast: $(VENV)/.dev ## Run the unit tests: seconds.
	$(BIN)/python -m pytest --numprocesses 2 tests/unit

release-check: $(VENV)/.dev ## Check what a release needs beyond the tests: that the account in its addresses is set.
	RELEASE=1 $(BIN)/python -m pytest tests/project/test_hub.py

fuzz: $(VENV)/.dev ## Decode 20,000 mutated audio files: about 20 minutes.
	$(BIN)/python tests/tools/fuzz.py --count 20000

soak: $(VENV)/.dev ## Send 5,000 jobs through the worker's loop: some minutes.
	$(BIN)/python tests/tools/soak.py --jobs 5000

attack: $(VENV)/.dev ## Attack the worker in its loop, each way that once broke it and all at once: ten minutes.
	$(BIN)/python tests/tools/attack.py --minutes 10

image-test: ## Build the image with the bundled model, and transcribe in it: some minutes.
	$(PYTHON) tests/tools/image.py --build-with $(BUILD_IMAGE)

bench: $(VENV)/.dev ## Measure the worker beside NeMo's own transcribe(): about half an hour on two cores.
	$(BIN)/python benchmarks/bench.py --model embedded
	$(BIN)/python benchmarks/bench.py --model embedded --long --count 16
	$(BIN)/python benchmarks/bench.py --model twin --count 64 --rounds 1

bench-start: $(VENV)/.dev ## Measure the worker's start beside the reference flow's: about ten minutes on two cores.
	$(BIN)/python benchmarks/start.py --model embedded --rounds 5
	$(BIN)/python benchmarks/start.py --model embedded --rounds 3 --cold
	$(BIN)/python benchmarks/start.py --model twin --rounds 3
	$(BIN)/python benchmarks/start.py --model twin --rounds 2 --cold

bench-loop: $(VENV)/.dev ## Measure the worker's loop beside the SDK's: about six minutes.
	$(BIN)/python benchmarks/loop.py

bench-batching: $(VENV)/.dev ## Measure the scheduler beside other ways to make batches, on simulated devices: four minutes.
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/batching.py

bench-options: $(VENV)/.dev ## Measure what the options of a request cost: some minutes.
	$(BIN)/python benchmarks/options.py

bench-words: $(VENV)/.dev ## Measure how good confidence and key terms are: two minutes.
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/confidence.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/key_terms.py

bench-hours: $(VENV)/.dev ## Check and time all options on three hours of audio: two minutes.
	$(BIN)/python benchmarks/hours.py

eval: $(VENV)/.dev ## Measure word errors, times and cost of the bundled model, or of any: MANIFEST= SET= TARGET= OUTPUT= PRICE= ARGS=.
	@PYTHONPATH=clients/python/src $(BIN)/python evaluation/evaluate.py $${SET:+--set "$$SET"} $${TARGET:+--target "$$TARGET"} \
	  $${OUTPUT:+--output "$$OUTPUT"} $${PRICE:+--price-per-hour "$$PRICE"} $(ARGS) $${MANIFEST:+-- "$$MANIFEST"}

eval-compare: $(VENV)/.dev ## Say whether two results of make eval differ by more than chance: A=folder B=folder.
	@PYTHONPATH=clients/python/src $(BIN)/python evaluation/evaluate.py --compare "$${A:?name the first folder: A=folder}" "$${B:?name the second folder: B=folder}"

embedded-model: WORK ?= training/output
embedded-model: $(VENV)/.training ## Make the bundled model anew: hours on two cores. WORK=folder BATCHES= START= ARGS=.
	$(BIN)/python -m training $${BATCHES:+--batches "$$BATCHES"} $${START:+--start-from "$$START"} $(ARGS) -- "$(WORK)"
	$(MAKE) measure MODEL="$(WORK)/parakeet-tdt-mini" OLD=models/parakeet-tdt-mini CORPUS="$(WORK)/corpus" ARGS="--output $(WORK)/measures.json"
	$(BIN)/python -m training.replace "$(WORK)/parakeet-tdt-mini" "$(WORK)/measures.json"

measure: $(VENV)/.training ## Measure a baked model beside the bars: MODEL=folder OLD=folder CORPUS=folder ARGS=.
	@PYTHONPATH=evaluation:clients/python/src $(BIN)/python -m training.measure --corpus "$${CORPUS:-training/output/corpus}" \
	  $${OLD:+--old "$$OLD"} $(ARGS) -- "$${MODEL:-models/parakeet-tdt-mini}"

gpu-check: $(VENV)/.run ## Check and measure everything that only a GPU can run.
	@$(BIN)/python -c 'import sys, torch; torch.cuda.is_available() or sys.exit("There is no GPU that PyTorch can use: nothing was checked.")'
	$(MAKE) $(VENV)/.dev
	$(BIN)/python benchmarks/gpu_check.py

dry-run: $(VENV)/.dev ## Count what a GPU would do, without one: operations, kernels, waits and memory. A minute.
	$(BIN)/python benchmarks/dry_run.py --table

pictures: $(VENV)/.dev ## Draw the pictures of the documentation anew.
	$(BIN)/python docs/pictures/timeline.py
	$(BIN)/python benchmarks/chart.py

openapi: $(VENV)/.dev ## Write the OpenAPI document and the TypeScript declaration anew from the schemas.
	$(BIN)/python clients/build_openapi.py
	npm run --prefix clients/typescript --silent types

lint: $(VENV)/.dev ## Check style, formatting and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	if test -x $(BIN)/hadolint; then $(BIN)/hadolint Dockerfile; fi

format: $(VENV)/.dev ## Apply the style.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# CUDA's libraries, and Triton, stay out of the locks: torch's own metadata brings them where its CUDA build is
# installed, and a machine without a GPU needs none of their gigabytes.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --annotation-style line \
  --custom-compile-command "make lock" --upgrade $(CUDA:%=--no-emit-package %)
CUDA := triton $(addprefix cuda-,bindings pathfinder toolkit) $(addprefix nvidia-,cublas cuda-cupti cuda-nvrtc cuda-runtime \
  cudnn-cu13 cufft cufile curand cusolver cusparse cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx)

# NeMo caps the versions of packages that serving needs too, so the largest set is resolved first, and the others follow it.
lock: ## Write the lock files anew from requirements*.in.
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) uv
	$(COMPILE) requirements.in requirements-nemo.in --output-file requirements-nemo.txt
	$(COMPILE) requirements.in --constraint requirements-nemo.txt --output-file requirements.txt
	$(COMPILE) requirements-dev.in --output-file requirements-dev.txt
	$(COMPILE) requirements-training.in --output-file requirements-training.txt

clean: ## Remove the environments and caches that the other targets made. Results stay.
	rm -rf $(VENV) $(NODE:%=%/node_modules) .mypy_cache .pytest_cache .ruff_cache .hypothesis src/*.egg-info clients/python/build clients/python/src/*.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.run: requirements.txt requirements.in pyproject.toml
	@echo "Installing the worker's packages into $(VENV) (a few minutes, once)."
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4) and "Python 3.11.4 or later is needed; name it with make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(filter-out --quiet,$(PIP)) -r requirements.txt
	$(PIP) --no-deps --editable .
	touch $@

$(VENV)/.training: requirements-training.txt $(VENV)/.dev
	$(PIP) -r requirements-training.txt
	touch $@

$(VENV)/.dev: requirements-nemo.txt requirements-dev.txt $(NODE:%=%/package-lock.json) $(VENV)/.run
	@echo "Installing NeMo and what the tests and the linters need into $(VENV) (a few minutes, once)."
	$(PIP) -r requirements-nemo.txt -r requirements-dev.txt
	if command -v npm >/dev/null; then for folder in $(NODE); do npm ci --prefix $$folder --silent --no-audit --no-fund \
	  || echo "The tests that need $$folder are left out."; done; fi
	touch $@
