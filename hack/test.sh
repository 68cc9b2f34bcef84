#!/usr/bin/env bash
# Lint, types and tests, as CI runs them; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${VENV:-.venv}/bin

"$bin/ruff" check .
"$bin/ruff" format --check --quiet .
"$bin/mypy" gateway/synapse_gateway backends/*/synapse_* conformance hack/cluster hack/argocd
"$bin/python" -m pytest --cov --cov-report=term:skip-covered "$@"
