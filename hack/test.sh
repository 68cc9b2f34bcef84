#!/usr/bin/env bash
# Lint, types and tests, as CI runs them; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${VENV:-.venv}/bin

"$bin/ruff" check .
"$bin/ruff" format --check --quiet .
"$bin/mypy" gateway backends/*/synapse_* conformance hack/cluster hack/argocd
if (($# > 0)); then
  exec "$bin/python" -m pytest "$@"
fi
# Most tests wait for a server that they started: one process more than there are cores keeps these
# busy. A file stays in one process, so that what its tests share is started once.
cores_and_one=$("$bin/python" -c "import os; print(os.cpu_count() + 1)")
"$bin/python" -m pytest --numprocesses="${TEST_PROCESSES:-$cores_and_one}" --dist=loadfile \
  --cov --cov-report=term:skip-covered
# Who serves a request, and how it is carried: no branch of that goes untested. What the tests cannot
# reach says why beside its `pragma: no cover`.
"$bin/coverage" report --include='gateway/synapse_gateway/routing/*,gateway/synapse_gateway/proxy/*' --fail-under=100
