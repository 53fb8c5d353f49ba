# Fairlead. `make` alone says what there is. Everything runs from .venv, which `make setup` makes.

SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.fairlead-ready
MANIFEST := examples/flights/modeldeployment.yaml
PACKAGES := sdk model_server operator ledger examples/flights
NATIVE := $(wildcard model_server/native/*.toml model_server/native/src/*.rs)
CODE := sdk model_server operator ledger examples feature_repo tests tools

.DEFAULT_GOAL := help
.PHONY: terraform help setup system features train up demo test tools cluster-up cluster-down test-cluster e2e check format gen lock images test-images simulate bench fuzz soak clean

help:  ## what can be made (this list)
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) system  ## make .venv from the hash-pinned requirements, and the servers that tests start

$(READY): requirements/all.txt $(PACKAGES:%=%/pyproject.toml) tools/setup.sh $(NATIVE)
	@PYTHON="$(PYTHON)" sh tools/setup.sh $(VENV) $(PACKAGES)

system:
	@sh tools/system.sh
	@$(PYTHON) tools/kafka fetch
	@$(PYTHON) tools/h2spec fetch

features: $(READY)  ## build, apply and materialize the flights features
	@$(BIN)/python -m flights.features

train: features  ## train, evaluate and package the two flights models
	@$(BIN)/python examples/flights/train.py

up: $(READY)  ## serve the flights models on one machine (make train first); Ctrl-C ends it
	@FEAST_FS_YAML_FILE_PATH="$(CURDIR)/feature_repo/feature_store$(if $(FAIRLEAD_REDIS),.redis).yaml" \
	  $(BIN)/fairlead up -f $(MANIFEST)

demo: $(READY)  ## two models, two months of real flights as live traffic, a verdict (SCENARIO=regression, SCENARIO=aa)
	@$(BIN)/python -m flights.demo$(if $(SCENARIO), --scenario $(SCENARIO))

test: $(READY)  ## all tests, side by side on all cores (ARGS=… for pytest)
	@$(BIN)/python -m pytest --numprocesses auto $(ARGS)

tools: $(READY)  ## build the test cluster's programs from pinned Go modules, once (a quarter of an hour)
	@$(BIN)/python tools/cluster build

cluster-up: $(READY)  ## a one-node Kubernetes with KServe and Istio in a network namespace (Linux, root, Go)
	@$(BIN)/python tools/cluster up

cluster-down: $(READY)  ## end it and leave nothing behind but its logs
	@$(BIN)/python tools/cluster down

test-cluster: $(READY)  ## tests/cluster against the real cluster, brought up and taken down (ARGS=… for pytest)
	@$(BIN)/python tools/cluster test $(ARGS)

e2e: train  ## images, then the whole way on a real cluster: install, use, break, upgrade, uninstall (CLUSTER=kind, KAFKA=1)
	@$(BIN)/python tools/native wheel build/native
	@$(BIN)/python tools/images build $(if $(filter kind,$(CLUSTER)),--engine docker)
	@$(BIN)/python tools/e2e --cluster $(or $(CLUSTER),bundled) $(if $(KAFKA),--kafka) $(ARGS)

check: $(READY)  ## lint, types, generated files, and what must never be committed
	@$(BIN)/ruff format --check --quiet $(CODE)
	@$(BIN)/ruff check --quiet $(CODE)
	@$(BIN)/mypy --no-error-summary sdk/src model_server/src operator/src ledger/src examples/flights/src tests tools/e2e/e2e tools/simulate/simulate tools/bench/bench tools/fuzz/fuzz tools/soak/soak
	@$(BIN)/python tools/tidy.py
	@$(BIN)/python tools/gen.py --check
	@$(BIN)/python tools/native check
	@$(BIN)/python tools/bench --check-docs
	@echo "check: lint, types, generated files and tidiness are in order"

format: $(READY)  ## format and sort imports
	@$(BIN)/ruff format --quiet $(CODE)
	@$(BIN)/ruff check --quiet --fix $(CODE)

gen: $(READY)  ## write what is generated from the API: CRD and reference pages
	@$(BIN)/python tools/gen.py

lock:  ## pin requirements/*.in anew, with hashes (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --upgrade \
	  --custom-compile-command "make lock" requirements/runtime.in requirements/dev.in --output-file requirements/all.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --upgrade \
	  --custom-compile-command "make lock" tools/simulate/peers/requirements.in --output-file tools/simulate/peers/requirements.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --upgrade \
	  --custom-compile-command "make lock" tools/fuzz/requirements.in --output-file tools/fuzz/requirements.txt
	@for peer in tools/bench/peers/*/requirements.in; do \
	  uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_36 --generate-hashes --no-annotate --upgrade \
	    --custom-compile-command "make lock" $$peer --output-file $${peer%.in}.txt || exit 1; \
	done
	@for image in build gateway operator server ledger flights; do \
	  without=requirements/$$image.without.txt; \
	  uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_36 --generate-hashes --no-annotate \
	    --constraint requirements/all.txt $$([ ! -e $$without ] || echo --override $$without) \
	    --custom-compile-command "make lock" requirements/$$image.in --output-file requirements/$$image.txt || exit 1; \
	done

images: $(READY)  ## build the container images that are not in the cache (Debian, root; else ENGINE=docker; ARGS="server operator" for some)
	@$(BIN)/python tools/native wheel build/native
	@$(BIN)/python tools/images build $(if $(ENGINE),--engine $(ENGINE)) $(ARGS)

test-images: $(READY)  ## images, and tests of what is in them (root; ARGS=… for pytest)
	@$(BIN)/python tools/native wheel build/native
	@$(BIN)/python tools/images build $(if $(ENGINE),--engine $(ENGINE))
	@FAIRLEAD_IMAGES=1 $(BIN)/python -m pytest tests/images $(ARGS)

terraform: $(READY)  ## format, validate and test terraform/ with a mocked provider (ARGS="modules/network" for some)
	@$(BIN)/python tools/terraform $(ARGS)

simulate: $(READY)  ## whether the statistics hold: a quarter of an hour on two cores, taken up where it was left (ARGS="--list")
	@$(BIN)/python tools/simulate $(ARGS)

bench: $(READY)  ## model servers side by side: CPU per request, answers checked first (ARGS="--quick", "--only fairlead,native")
	@$(BIN)/python tools/bench $(ARGS)

fuzz: $(READY)  ## broken bytes for every decoder and engine, ten minutes a target (ARGS="--seconds 60 --only v2-json")
	@$(BIN)/python tools/fuzz $(ARGS)

soak: $(READY)  ## ten minutes at half of saturation, REST and gRPC: memory, errors, open files, latency (ARGS="--minutes 1")
	@$(BIN)/python tools/soak $(ARGS)

clean:  ## remove what was built (not .venv)
	rm -rf build feature_repo/data .fairlead .mypy_cache .ruff_cache .pytest_cache .hypothesis
