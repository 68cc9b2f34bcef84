#!/usr/bin/env bash
# Builds one image of the last commit twice from nothing and says whether the layers are the same; where they are not,
# which files differ and in what. Exit code 1 if they differ.
#
#   hack/images/compare.sh [gateway | llama-cpp | piper-tts | whisper-stt | pyannote-speaker | deepfilter-audio]
#   hack/images/compare.sh --images IMAGE IMAGE       compares two that are there already
set -euo pipefail
cd "$(dirname "$0")/../.."

work="$(mktemp -d)"
mine=()
# shellcheck disable=SC2317
cleanup() {
  rm -rf "$work"
  [[ ${#mine[@]} == 0 ]] || buildah rmi "${mine[@]}" >/dev/null
}
trap cleanup EXIT

if [[ "${1:-}" == --images ]]; then
  images=("$2" "$3")
else
  name="${1:-gateway}"
  images=()
  # One commit twice, whatever happens to the working tree meanwhile.
  REVISION="$(git rev-parse HEAD)"
  CREATED="$(git log -1 --format=%cI)"
  export REVISION CREATED
  mkdir "$work/tree"
  git archive "$REVISION" | tar -xf - -C "$work/tree"
  for turn in first second; do
    echo "building $name, the $turn time" >&2
    IMAGE_PREFIX=localhost/compare/ TAG="$turn" BUILDER=buildah BUILD_FLAGS=--no-cache \
      "$work/tree/hack/images/build.sh" "$name" >&2
    images+=("localhost/compare/synapse-$name:$turn")
    mine+=("localhost/compare/synapse-$name:$turn")
  done
fi
for i in 0 1; do
  buildah push --quiet --disable-compression "${images[$i]}" "oci:$work/$i" >/dev/null
done
python3 hack/images/compare_layers.py "$work/0" "$work/1"
