#!/usr/bin/env bash
# Builds the real kube-apiserver from its Go module, without root, and prints the binary's path.
#
#   hack/tools/build-kube-apiserver.sh          build into the cache (minutes on 2 cores), or find it
#   hack/tools/build-kube-apiserver.sh --path   print where it is or would be, build nothing
#   KUBERNETES_VERSION=1.34.4 hack/tools/build-kube-apiserver.sh
#
# Needs: go (1.24.0 or later) and python3. Result: CACHE/synapse/bin/kube-apiserver-VERSION, with
# CACHE being XDG_CACHE_HOME or ~/.cache. A second call takes no time.
set -euo pipefail

version=${KUBERNETES_VERSION:-1.34.4}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/synapse
binary=$cache/bin/kube-apiserver-$version

say() { printf 'build-kube-apiserver: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}

case ${1:-} in
--path)
  echo "$binary"
  exit 0
  ;;
'') ;;
*) die "unknown argument '$1'; only --path is understood" ;;
esac

if [[ -x $binary ]]; then
  echo "$binary"
  exit 0
fi

for tool in go python3 flock; do
  command -v "$tool" >/dev/null || die "'$tool' is missing; install it and run this again"
done

mkdir -p "$cache/bin"
exec 9>"$cache/bin/.kube-apiserver-$version.lock"
if ! flock -n 9; then
  say "another build of $version is running, waiting for it"
  flock 9
fi
if [[ -x $binary ]]; then # that other build made it
  echo "$binary"
  exit 0
fi

work=$(mktemp -d "$cache/build-kube-apiserver.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/module"
cd "$work/module"

# The gentle settings are for machines that do other work meanwhile: two compilers at most, lowest
# priority.
export GOFLAGS="-p=2 -mod=mod -buildvcs=false" GOMAXPROCS=2 CGO_ENABLED=0
module=k8s.io/kubernetes
command=$module/cmd/kube-apiserver

say "fetching Kubernetes $version and its modules"
download=$(go mod download -json "$module@v$version") ||
  die "$module@v$version could not be fetched; is GOPROXY reachable?"
manifest=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["GoMod"])' <<<"$download")

cat >go.mod <<MOD
module synapse.local/kubernetes

go 1.24.0

require $module v$version

MOD
# Its own go.mod replaces the staging modules by folders, which a module zip does not hold; their
# published twins, one version number lower, do.
grep -oE 'k8s\.io/[a-z0-9.-]+ => \./staging' "$manifest" | while read -r staging _; do
  echo "replace $staging => $staging v0.${version#1.}"
done >>go.mod
cat >tools.go <<GO
//go:build tools

package tools

import _ "$command"
GO
nice -n 19 go mod tidy >"$work/tidy.log" 2>&1 || {
  tail -n 20 "$work/tidy.log" >&2
  die "the modules could not be fetched; is GOPROXY reachable?"
}

say "compiling (some minutes; nice 19, two jobs)"
started=$SECONDS
minor=${version#1.}
symbols=k8s.io/component-base/version
nice -n 19 go build -trimpath -ldflags "-s -w -X $symbols.gitVersion=v$version \
  -X $symbols.gitMajor=1 -X $symbols.gitMinor=${minor%%.*}" \
  -o "$work/kube-apiserver" "$command" >"$work/build.log" 2>&1 || {
  tail -n 30 "$work/build.log" >&2
  die "the build failed"
}
mv "$work/kube-apiserver" "$binary"
say "built in $((SECONDS - started)) s, $(du -h "$binary" | cut -f1)"
echo "$binary"
