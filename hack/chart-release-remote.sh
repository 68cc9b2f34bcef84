#!/usr/bin/env bash
# Sends the committed tree to FORGE_HOST:REMOTE_DIR, builds and pushes the gateway's image there, and
# deploys it by the digest that the push printed. Nothing is built on this machine.
set -euo pipefail
# shellcheck source=hack/chart-lib.sh
source "$(dirname "$0")/chart-lib.sh"

: "${FORGE_HOST:=forge}" "${REMOTE_DIR:=synapse}" "${SSH:=ssh}"
[[ -n "$REGISTRY" ]] || die "REGISTRY: is not set; name the registry that $FORGE_HOST pushes to"
tag="${GATEWAY_REMOTE_TAG:-$(date -u +%Y%m%dT%H%M%SZ)}"
[[ "$REMOTE_DIR" =~ ^[A-Za-z0-9._/-]+$ && "$tag" =~ ^[A-Za-z0-9._-]+$ ]] ||
  die "REMOTE_DIR and GATEWAY_REMOTE_TAG: letters, digits, dots, dashes (got $REMOTE_DIR, $tag)"
[[ "/$REMOTE_DIR/" != */../* && "$REMOTE_DIR" != . && "$REMOTE_DIR" != / ]] ||
  die "REMOTE_DIR: must be a folder of its own (got $REMOTE_DIR)"
git diff --quiet HEAD -- . || echo "note: changes that are not committed stay here" >&2

# What earlier releases left behind must not end up in this image, so the folder is made anew; only one
# that this program made is taken away.
mark=.synapse-release
# shellcheck disable=SC2086
git archive --format=tar HEAD | $SSH "$FORGE_HOST" "
  if [ -e '$REMOTE_DIR' ] && ! [ -e '$REMOTE_DIR/$mark' ] && [ -n \"\$(ls -A '$REMOTE_DIR')\" ]; then
    echo 'REMOTE_DIR: $REMOTE_DIR on $FORGE_HOST holds something else; name another, or empty it' >&2
    exit 1
  fi
  rm -rf '$REMOTE_DIR' && mkdir -p '$REMOTE_DIR' && touch '$REMOTE_DIR/$mark' &&
    tar -xf - -C '$REMOTE_DIR'"
# shellcheck disable=SC2086
output="$($SSH "$FORGE_HOST" "cd '$REMOTE_DIR' && REGISTRY='$REGISTRY' GATEWAY_TAG='$tag' \
  BUILDER='${BUILDER:-}' BUILD_FLAGS='${BUILD_FLAGS:-}' PUSH_FLAGS='${PUSH_FLAGS:-}' \
  GATEWAY_DOCKERFILE='${GATEWAY_DOCKERFILE:-}' hack/chart-build-gateway.sh" | tee /dev/stderr)"
digest="$(grep -oE '^pushed .*@sha256:[0-9a-f]{64}$' <<<"$output" | tail -n 1 | sed 's/.*@//')"
[[ -n "$digest" ]] || die "$FORGE_HOST pushed nothing that has a digest"
upgrade --set "gateway.image.tag=$tag" --set "gateway.image.digest=$digest" --wait --timeout 30m
echo "deployed ${REGISTRY%/}/synapse-gateway:$tag@$digest"
