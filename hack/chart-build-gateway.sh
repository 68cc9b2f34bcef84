#!/usr/bin/env bash
# Builds and pushes REGISTRY/synapse-gateway:TAG, and prints the digest of what was pushed.
# TAG is the chart's appVersion unless GATEWAY_TAG names another. BUILDER is docker, podman or buildah.
set -euo pipefail
# shellcheck source=hack/chart-lib.sh
source "$(dirname "$0")/chart-lib.sh"

[[ -n "$REGISTRY" ]] || die "REGISTRY: is not set; name the registry with its path, such as ghcr.io/you"
file="${GATEWAY_DOCKERFILE:-gateway/Dockerfile}"
[[ -f "$file" ]] || die "$file: is not there, so there is nothing to build"
tag="${GATEWAY_TAG:-$(awk '$1 == "appVersion:" { print $2 }' $chart/Chart.yaml)}"
image="${REGISTRY%/}/synapse-gateway:$tag"
if [[ -z "${BUILDER:-}" ]]; then
  for BUILDER in docker podman buildah none; do
    command -v "$BUILDER" >/dev/null && break
  done
fi

# BUILD_FLAGS and PUSH_FLAGS are for registries without TLS and the like.
# shellcheck disable=SC2086
case "$(basename "$BUILDER")" in
  docker)
    $BUILDER build ${BUILD_FLAGS:-} -f "$file" -t "$image" .
    digest="$($BUILDER push ${PUSH_FLAGS:-} "$image" | tee /dev/stderr | grep -oE 'sha256:[0-9a-f]{64}' | tail -n 1)"
    ;;
  podman | buildah)
    $BUILDER build ${BUILD_FLAGS:-} -f "$file" -t "$image" .
    written="$(mktemp)"
    $BUILDER push ${PUSH_FLAGS:-} --digestfile "$written" "$image"
    digest="$(cat "$written")"
    rm -f "$written"
    ;;
  *) die "neither docker, podman nor buildah is installed; install one, or name it with BUILDER" ;;
esac
[[ "$digest" =~ ^sha256:[0-9a-f]{64}$ ]] || die "the push of $image printed no digest"
echo "pushed $image@$digest"
