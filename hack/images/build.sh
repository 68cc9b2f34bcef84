#!/usr/bin/env bash
# Builds the images of this repository and prints their sizes.
#
#   hack/images/build.sh                     all of them
#   hack/images/build.sh gateway piper-tts   some of: gateway llama-cpp piper-tts whisper-stt
#                                            pyannote-speaker deepfilter-audio openvoice
#                                            ollama redis (for tests without a registry)
#
#   BUILDER       docker or buildah; by default the one that works here
#   IMAGE_PREFIX  registry and path in front of the name ("docker.io/library/", which is what a name
#                 without a registry means to Docker and to a cluster)
#   TAG           by default the chart's appVersion
#   BUILD_FLAGS   more flags, such as --no-cache
#
# Every file in a layer carries one fixed time, so that a second build gives the same layers, and a
# commit that changes nothing in a layer leaves it as it is; see docs/images.md. pip's settings and
# the certificates of this machine are shown to the build as secrets and end up in no layer.
set -euo pipefail
cd "$(dirname "$0")/../.."

die() {
  echo "hack/images/build.sh: $*" >&2
  exit 1
}

: "${IMAGE_PREFIX:=docker.io/library/}" "${BUILDER:=}" "${BUILD_FLAGS:=}"
: "${TAG:=$(awk '$1 == "appVersion:" { gsub("\"", "", $2); print $2 }' charts/synapse/Chart.yaml)}"
: "${SOURCE_DATE_EPOCH:=1580601600}" # 2020-02-02, which the wheel's builder takes as well
created="${CREATED:-$(git log -1 --format=%cI 2>/dev/null || echo unknown)}"
revision="${REVISION:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}"
export SOURCE_DATE_EPOCH

if [[ -z "$BUILDER" ]]; then
  if docker info >/dev/null 2>&1; then
    BUILDER=docker
  elif command -v buildah >/dev/null; then
    BUILDER=buildah
  else
    die "neither a Docker daemon answers nor is buildah installed"
  fi
fi

# shellcheck source=hack/images/secrets.sh
source hack/images/secrets.sh
trap 'rm -rf "$secrets"' EXIT

build() { # build NAME DOCKERFILE CONTEXT
  local image="${IMAGE_PREFIX}synapse-$1:$TAG" started=$SECONDS
  local -a flags=(--file "$2" --tag "$image" "${secret_flags[@]}"
    --label "org.opencontainers.image.version=$TAG"
    --label "org.opencontainers.image.revision=$revision"
    --label "org.opencontainers.image.created=$created")
  # BUILD_FLAGS may be several words.
  # shellcheck disable=SC2086
  if [[ "$BUILDER" == docker ]]; then
    docker build --quiet "${flags[@]}" --build-arg SOURCE_DATE_EPOCH $BUILD_FLAGS "$3" >/dev/null
    size="$(docker image inspect --format '{{.Size}}' "$image")"
  else
    nice -n 15 buildah build --quiet --layers --isolation chroot --network host --format oci \
      --timestamp "$SOURCE_DATE_EPOCH" "${flags[@]}" $BUILD_FLAGS "$3" >/dev/null
    size="$(buildah images --json "$image" | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["size"])')"
  fi
  printf '%-48s %10s  %4d s\n' "$image" "$size" $((SECONDS - started))
}

names=("$@")
[[ $# -gt 0 ]] || names=(gateway llama-cpp piper-tts whisper-stt pyannote-speaker deepfilter-audio openvoice)
for name in "${names[@]}"; do
  case "$name" in
    gateway | llama-cpp | piper-tts | whisper-stt | pyannote-speaker | deepfilter-audio | openvoice | ollama | redis) ;;
    *) die "unknown image '$name': expected gateway, llama-cpp, piper-tts, whisper-stt, pyannote-speaker,\
 deepfilter-audio, openvoice, ollama or redis" ;;
  esac
done

[[ "$BUILDER" == docker ]] || hack/images/base.sh
for name in "${names[@]}"; do
  case "$name" in
    gateway) build gateway gateway/Dockerfile . ;;
    ollama)
      mkdir "$secrets/ollama"
      cp "$(hack/build-ollama.sh)" "$secrets/ollama/ollama"
      build ollama hack/images/ollama.Dockerfile "$secrets/ollama"
      ;;
    redis) build redis hack/images/redis.Dockerfile . ;;
    *) build "$name" "backends/$name/Dockerfile" . ;;
  esac
done
