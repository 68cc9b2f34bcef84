#!/usr/bin/env bash
# Removes the release. Lists what is lost first, and wants the namespace's name as CONFIRM (or typed).
# Volumes and Secrets stay, in their namespace, unless PURGE=1 deletes that too.
set -euo pipefail
# shellcheck source=hack/chart-lib.sh
source "$(dirname "$0")/chart-lib.sh"

# shellcheck disable=SC2086
$KUBECTL get namespace "$NAMESPACE" >/dev/null || die "there is no namespace $NAMESPACE"
echo "In $NAMESPACE:"
k get deployments,daemonsets,services,persistentvolumeclaims,secrets -o name | sed 's/^/  /'
if [[ "${PURGE:-}" == 1 ]]; then
  echo "PURGE=1: the namespace is deleted with everything in it, models, voices and keys included."
else
  echo "Volumes and Secrets are kept; PURGE=1 deletes them as well."
fi
if [[ -z "${CONFIRM:-}" && -t 0 ]]; then
  read -r -p "Type the namespace's name to go on: " CONFIRM
fi
[[ "${CONFIRM:-}" == "$NAMESPACE" ]] || die "nothing was removed: CONFIRM must be $NAMESPACE"
command="${HELM:-helm}"
if [[ "$command" != *" "* ]] && ! command -v "$command" >/dev/null; then
  command="$(hack/tools/install.sh helm4)"
fi
# shellcheck disable=SC2086
$command uninstall "$RELEASE" --namespace "$NAMESPACE" --ignore-not-found
if [[ "${PURGE:-}" == 1 ]]; then
  # shellcheck disable=SC2086
  $KUBECTL delete namespace "$NAMESPACE"
fi
