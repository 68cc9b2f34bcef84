#!/usr/bin/env bash
# Lint, types and tests, as CI runs them; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${VENV:-.venv}/bin

"$bin/ruff" check .
"$bin/ruff" format --check --quiet .
"$bin/mypy" gateway backends/*/synapse_* conformance hack/cluster hack/argocd
# The tests start hundreds of processes of the same modules, which are compiled once.
unset PYTHONDONTWRITEBYTECODE
if (($# > 0)); then
  exec "$bin/python" -m pytest "$@"
fi
# Most tests wait for a server that they started: one process more than there are cores keeps these
# busy. A file stays in one process, so that what its tests share is started once. Files begin in the
# order of `testpaths`, where long ones come first, and not by how many tests they hold.
cores_and_one=$("$bin/python" -c "import os; print(os.cpu_count() + 1)")
run=("$bin/python" -m pytest --numprocesses="${TEST_PROCESSES:-$cores_and_one}")
run+=(--dist=loadfile --no-loadscope-reorder)
# Who serves a request, and how it is carried: its own tests leave no branch of that out. What they
# cannot reach says why beside its `pragma: no cover`. Tracing takes half as long again, so nothing
# else is traced.
traced=(gateway/tests/routing gateway/tests/proxy)
"${run[@]}" --cov --cov-report=term-missing:skip-covered --cov-fail-under=100 "${traced[@]}"
"${run[@]}" "${traced[@]/#/--ignore=}"
