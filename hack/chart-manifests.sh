#!/usr/bin/env bash
# Renders VALUES into plain manifests: MANIFESTS/infra (volumes, accounts, configuration, policies),
# MANIFESTS/apps (what runs), MANIFESTS/monitoring. Apply infra first:
#   kubectl -n llm-infra apply -R -f build/manifests/infra -f build/manifests/apps
set -euo pipefail
# shellcheck source=hack/chart-lib.sh
source "$(dirname "$0")/chart-lib.sh"

out="${MANIFESTS:-build/manifests}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
operator=()
[[ "${PROMETHEUS_OPERATOR:-yes}" == no ]] || operator=(--api-versions monitoring.coreos.com/v1)
render --output-dir "$work" "${operator[@]}" >/dev/null
rm -rf "$out"
mkdir -p "$out/infra" "$out/apps" "$out/monitoring"
while IFS= read -r file; do
  relative="${file#"$work"/synapse/templates/}"
  case "$relative" in
    monitoring/*) group=monitoring ;;
    network/* | keys/* | *pvc.yaml | *configmap.yaml | *serviceaccount.yaml | *role.yaml | *rolebinding.yaml | model-storage.yaml)
      group=infra
      ;;
    *) group=apps ;;
  esac
  cp "$file" "$out/$group/${relative//\//-}"
done < <(find "$work" -name '*.yaml' | sort)
cat >"$out/infra/00-namespace.yaml" <<EOF
apiVersion: v1
kind: Namespace
metadata:
  name: $NAMESPACE
EOF
count="$(find "$out" -name '*.yaml' | wc -l)"
echo "$count files in $out: infra, apps, monitoring"
