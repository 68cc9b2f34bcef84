PYTHON ?= .venv/bin/python
BENCH ?= compare
BENCH_FLAGS ?=

.PHONY: bench
bench: ## Measure the gateway beside nginx; BENCH=soak sends it a million requests
	$(PYTHON) -m loadtests.bench.run $(BENCH) $(BENCH_FLAGS)
