#!/usr/bin/env bash
# Runs the conformance suite; arguments go to pytest, which ends with its own summary line.
#
#   GATEWAY_URL=http://HOST:PORT hack/conformance.sh
#   KUBECONFIG=~/.kube/config hack/conformance.sh --disruptive
#
# Without either: the cluster of `make cluster` if it is up, from inside its network, else `make up`.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${VENV:-.venv}/bin
suite=("$bin/python" -m pytest conformance)

if [ -n "${GATEWAY_URL:-}${KUBECONFIG:-}" ]; then
  exec "${suite[@]}" "$@"
fi
if hack/cluster/enter true 2> /dev/null; then
  # Images that the phases have and values/embedded.yaml has not.
  [[ " $* " != *" --disruptive "* ]] || "${PYTHON:-python3}" -m hack.cluster add phases
  exec hack/cluster/enter "${suite[@]}" "$@"
fi
exec "${suite[@]}" --gateway-url="http://127.0.0.1:${PORT:-8000}" "$@"
