#!/usr/bin/env bash
# Lints the chart with VALUES, validates what it renders strictly and offline, and, where a cluster
# answers, lets its API server judge it by a dry run.
set -euo pipefail
# shellcheck source=hack/chart-lib.sh
source "$(dirname "$0")/chart-lib.sh"

value_flags
helm_here lint --strict "$chart" "${flags[@]}"
python="$(hack/tools/install.sh kubernetes-validate)"
for version in ${KUBERNETES_VERSIONS:-1.26 1.30 1.34 1.37}; do
  render --kube-version "$version" | "$python" hack/tools/validate_manifests.py --kubernetes-version "$version" -
  echo "$VALUES is valid for Kubernetes $version"
done
# shellcheck disable=SC2086
if $KUBECTL get --raw /readyz >/dev/null 2>&1; then
  # shellcheck disable=SC2086
  $KUBECTL get namespace "$NAMESPACE" >/dev/null 2>&1 ||
    die "the cluster answers, but has no namespace $NAMESPACE to dry-run in: make deploy-infra"
  render | k apply --dry-run=server -f - >/dev/null
  echo "$VALUES is accepted by the cluster (dry run)"
else
  echo "no cluster answers $KUBECTL; the dry run was left out"
fi
