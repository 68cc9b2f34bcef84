# `make` lists the targets. But for the cluster, nothing here needs root, a compiler or a system package.
.DEFAULT_GOAL := help
.PHONY: help up down test lock bench api-doc
SHELL := /bin/sh

PORT ?= 8000
BACKEND ?=
EMBEDDED ?=
VENV ?= .venv
export VENV
ifdef PYTHON
export PYTHON
endif

# A user's own server needs the gateway alone, unless the embedded models are asked for as well.
up_lock = $(if $(BACKEND),$(if $(EMBEDDED),embedded,gateway),embedded)
# only what was asked for, so that a second `make up` can tell
up_flags = $(if $(filter file,$(origin PORT)),,--port $(PORT)) $(addprefix --backend ,$(BACKEND)) $(if $(EMBEDDED),--embedded)
install = @$${PYTHON:-python3} hack/install.py

help: ## Show this list
	@awk -F ':.*## ' '/^##@/ {print "\n" substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Use

up: ## Start real models and the gateway on this machine (PORT=8000; BACKEND=http://... for your own server)
	$(install) $(up_lock)
	@$(VENV)/bin/python -m synapse_gateway up $(up_flags)

down: ## Stop what `make up` has started
	@if [ -x $(VENV)/bin/python ]; then $(VENV)/bin/python -m synapse_gateway down; else echo "nothing is up"; fi

##@ Develop

test: ## Lint, check types and run every test against the real models
	$(install) test
	@hack/test.sh

lock: ## Write locks/*.txt anew from pyproject.toml
	@hack/lock.sh

api-doc: ## Write docs/API.md anew from the OpenAPI document
	@$(VENV)/bin/python hack/generate_api_doc.py

##@ Prove

.PHONY: conformance conformance-mutants
CONFORMANCE_FLAGS ?=
export PORT

conformance: ## Look at a live deployment line by line (GATEWAY_URL, KUBECONFIG, CONFORMANCE_FLAGS=--disruptive)
	$(install) test
	@hack/conformance.sh $(CONFORMANCE_FLAGS)

MUTANTS ?=

conformance-mutants: ## Break a cluster's release in many ways, and see that the suite notices each
	$(install) test
	@hack/conformance-mutants.sh $(MUTANTS)

##@ Measure

BENCH ?= compare
BENCH_FLAGS ?=

bench: ## Measure the gateway beside nginx; BENCH=soak or uploads: a million requests, large recordings
	@$(VENV)/bin/python -m loadtests.bench.run $(BENCH) $(BENCH_FLAGS)

.PHONY: audio-quality
audio-quality: ## Measure speech, speakers and noise removal on real audio, as in docs/audio-quality.md
	@PYTHONPATH=$(subst $() ,:,$(wildcard backends/*)) $(VENV)/bin/python -m synapse_quality

##@ Images (IMAGES="gateway piper-tts", BUILDER=docker or buildah, IMAGE_PREFIX, TAG)

.PHONY: images
IMAGES ?=

images: ## Build the images of the gateway and the model servers, and print their sizes
	@hack/images/build.sh $(IMAGES)

include hack/deploy.mk
include hack/cluster/targets.mk
