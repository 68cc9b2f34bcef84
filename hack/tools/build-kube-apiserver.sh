#!/usr/bin/env bash
# Builds the real kube-apiserver from its Go module, without root, and prints the binary's path.
#
#   hack/tools/build-kube-apiserver.sh          build into the cache (minutes on 2 cores), or find it
#   hack/tools/build-kube-apiserver.sh --path   print where it is or would be, build nothing
#
# Needs: go (1.24.0 or later) and python3. The version is in versions.env, the recipe, which is also
# that of a whole cluster, in hack/cluster/programs.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec "${PYTHON:-python3}" -m hack.cluster.programs "$@" kubernetes/kube-apiserver
