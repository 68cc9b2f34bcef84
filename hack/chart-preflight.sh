#!/usr/bin/env bash
# Makes the namespace, with the labels that Pod Security reads, and says what VALUES needs that the
# cluster lacks: a StorageClass, the GPU's resource, Secrets that it names.
set -euo pipefail
# shellcheck source=hack/chart-lib.sh
source "$(dirname "$0")/chart-lib.sh"

# shellcheck disable=SC2119
rendered="$(render | tr -d '"')" # names are quoted
# What is there already must not be lost: only what is missing is made.
# shellcheck disable=SC2086
$KUBECTL get namespace "$NAMESPACE" >/dev/null 2>&1 || $KUBECTL create namespace "$NAMESPACE"
level=restricted
grep -q 'name: chatterbox-tts$' <<<"$rendered" && level=baseline
grep -q 'kind: DaemonSet' <<<"$rendered" && level=privileged
# shellcheck disable=SC2086
$KUBECTL label --overwrite namespace "$NAMESPACE" \
  pod-security.kubernetes.io/enforce=$level pod-security.kubernetes.io/warn=restricted

missing=0
lacks() {
  echo "missing: $*" >&2
  missing=1
}
# shellcheck disable=SC2013
for class in $(awk '$1 == "storageClassName:" { print $2 }' <<<"$rendered" | sort -u); do
  # shellcheck disable=SC2086
  $KUBECTL get storageclass "$class" >/dev/null 2>&1 || lacks "the StorageClass $class"
done
if grep -q 'kind: PersistentVolumeClaim' <<<"$rendered" && ! grep -q storageClassName: <<<"$rendered"; then
  # shellcheck disable=SC2086
  $KUBECTL get storageclass -o yaml | grep -q 'is-default-class: "true"' ||
    lacks "a default StorageClass; mark one, or set storage.className"
fi
# shellcheck disable=SC2013
for resource in $(awk '$1 ~ /^[a-z.]+\/(gpu|mig-.*):$/ { print substr($1, 1, length($1) - 1) }' <<<"$rendered" | sort -u); do
  # shellcheck disable=SC2086
  $KUBECTL get nodes -o yaml | grep -q "$resource" || lacks "nodes with $resource; install the device plugin"
done
made=" synapse-api-keys synapse-internal "
# shellcheck disable=SC2013
for secret in $(grep -oE 'secretKeyRef: \{name: [a-z0-9.-]+|secret: \{secretName: [a-z0-9.-]+|secretName: [a-z0-9.-]+' <<<"$rendered" | awk '{ print $NF }' | sort -u); do
  [[ "$made" == *" $secret "* ]] && grep -q 'name: synapse-keys-' <<<"$rendered" && continue
  k get secret "$secret" >/dev/null 2>&1 || lacks "the Secret $secret in $NAMESPACE"
done
[[ $missing == 0 ]] || die "the namespace $NAMESPACE is there; bring what is missing before make deploy"
echo "$NAMESPACE is ready for $VALUES (Pod Security: $level)"
