#!/usr/bin/env bash
# Runs the gateway's unit tests against the gateway as its image has it: the image's Python, packages
# and installed code. The tests of this checkout are shown to it read-only; those marked `real` need
# models, which no gateway image holds, and are left out. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/../.."

die() {
  echo "hack/images/test-gateway.sh: $*" >&2
  exit 1
}

: "${IMAGE_PREFIX:=docker.io/library/}"
: "${TAG:=$(awk '$1 == "appVersion:" { gsub("\"", "", $2); print $2 }' charts/synapse/Chart.yaml)}"
image="${IMAGE_PREFIX}synapse-gateway:$TAG"
command -v buildah >/dev/null || die "buildah is not installed (apt-get install buildah)"
buildah images --quiet "$image" >/dev/null 2>&1 || die "there is no $image; run: make images"

# shellcheck source=hack/images/secrets.sh
source hack/images/secrets.sh
nice -n 15 buildah build --quiet --layers --isolation chroot --network host --build-arg "GATEWAY=$image" \
  "${secret_flags[@]}" --tag synapse-gateway-test --file hack/images/test.Dockerfile . >/dev/null

container="$(buildah from synapse-gateway-test)"
trap 'buildah rm "$container" >/dev/null; rm -rf "$secrets"' EXIT
[[ $# -gt 0 ]] || set -- gateway/tests
# The one test of the checkout itself, which an image is not, is left out.
checkout=gateway/tests/up/test_commands.py::test_the_working_tree_has_the_servers_that_the_plan_names
# An empty folder over this checkout's synapse_gateway: what is imported is what the image has.
mkdir "$secrets/empty"
nice -n 15 buildah run --isolation chroot --user 10001:10001 --workingdir /source \
  --volume "$PWD:/source:ro" --volume "$secrets/empty:/source/gateway/synapse_gateway:ro" \
  --env HOME=/tmp --env HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis "$container" -- \
  python3 -m pytest -q -p no:cacheprovider -m "not real" --deselect "$checkout" "$@"
