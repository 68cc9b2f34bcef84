#!/usr/bin/env bash
# Makes deliberate defects in a release, and sees that the suite catches each; arguments name some.
#
#   KUBECONFIG=~/.kube/config hack/conformance-mutants.sh keys-off alert-renamed
#
# Without KUBECONFIG: the cluster of `make cluster`, from inside its network.
set -euo pipefail
cd "$(dirname "$0")/.."
mutants=("${VENV:-.venv}/bin/python" -m conformance.mutants)

if [ -n "${KUBECONFIG:-}" ]; then
  exec "${mutants[@]}" "$@"
fi
exec hack/cluster/enter "${mutants[@]}" "$@"
