#!/usr/bin/env bash
# Lint, types and tests, as CI runs them; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${VENV:-.venv}/bin

"$bin/ruff" check .
"$bin/ruff" format --check --quiet .
"$bin/mypy" gateway backends/*/synapse_* conformance hack/cluster hack/argocd
"$bin/python" -m pytest --cov --cov-report=term:skip-covered "$@"
# Who serves a request, and how it is carried: no branch of that goes untested. What the tests cannot
# reach says why beside its `pragma: no cover`. A part of the tests cannot show it.
if (($# == 0)); then
  "$bin/coverage" report --include='gateway/synapse_gateway/routing/*,gateway/synapse_gateway/proxy/*' --fail-under=100
fi
