#!/usr/bin/env bash
# Builds the real Ollama CPU engine from its Go module, without root, and prints the binary's path.
#
#   hack/build-ollama.sh                  build into the cache (about 3 minutes on 2 cores), or find it there
#   hack/build-ollama.sh --path           print where the binary is or would be, build nothing
#   OLLAMA_VERSION=0.17.4 OLLAMA_MARCH=x86-64-v3 hack/build-ollama.sh
#
# Needs: go (1.24.1 or later), gcc and g++, python3 with pip. Result: CACHE/synapse/bin/ollama-VERSION, with CACHE
# being XDG_CACHE_HOME or ~/.cache. A second call takes no time.
set -euo pipefail

version=${OLLAMA_VERSION:-0.17.4}
march=${OLLAMA_MARCH:-x86-64-v3}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/synapse
binary=$cache/bin/ollama-$version

# Go's module zips leave out folders named vendor/, so three header libraries of llama.cpp are missing from Ollama's
# module. This source package carries llama.cpp whole, at about the age of the one that Ollama 0.17 is made from.
headers_package=llama-cpp-python==0.3.16
headers_sha256=34ed0f9bd9431af045bb63d9324ae620ad0536653740e9bb163a2e1fcb973be6

say() { printf 'build-ollama: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

case ${1:-} in
  --path) echo "$binary"; exit 0 ;;
  '') ;;
  *) die "unknown argument '$1'; only --path is understood" ;;
esac

if [[ -x $binary ]]; then
  echo "$binary"
  exit 0
fi

for tool in go gcc g++ python3; do
  command -v "$tool" >/dev/null || die "'$tool' is missing; install it and run this again"
done
[[ $(uname -m) == x86_64 ]] || march=native

mkdir -p "$cache/bin"
exec 9>"$cache/bin/.ollama-$version.lock"
if ! flock -n 9; then
  say "another build of $version is running, waiting for it"
  flock 9
fi
if [[ -x $binary ]]; then # that other build made it
  echo "$binary"
  exit 0
fi

work=$(mktemp -d "$cache/build-ollama.XXXXXX")
trap 'rm -rf "$work"' EXIT

include=$cache/include/${headers_package//==/-}
if [[ ! -f $include/.complete ]]; then
  say "fetching the header libraries ($headers_package, 51 MB)"
  python3 -m pip download -q --no-deps --no-binary :all: --disable-pip-version-check -d "$work/sdist" "$headers_package" >&2 ||
    die "pip could not download $headers_package; check the network or pip's index settings"
  sdist=$(echo "$work"/sdist/*.tar.gz)
  echo "$headers_sha256  $sdist" | sha256sum --check --quiet >&2 || die "$headers_package is not the file that was expected"
  mkdir -p "$include"
  tar xzf "$sdist" -C "$include" --wildcards --strip-components=4 \
    '*/vendor/llama.cpp/vendor/nlohmann/*' '*/vendor/llama.cpp/vendor/stb/*' '*/vendor/llama.cpp/vendor/miniaudio/*'
  touch "$include/.complete"
fi

say "fetching Ollama $version and its modules"
mkdir "$work/module"
cd "$work/module"
cat >go.mod <<MOD
module synapse.local/ollama

go 1.24.1

require github.com/ollama/ollama v$version
MOD
cat >tools.go <<'GO'
//go:build tools

package tools

import _ "github.com/ollama/ollama"
GO
# The gentle settings are for machines that do other work meanwhile: two compilers at most, lowest priority.
export GOFLAGS="-p=2 -mod=mod -buildvcs=false" GOMAXPROCS=2 CGO_ENABLED=1
nice -n 15 go mod tidy >&2 2>"$work/tidy.log" || { tail -n 20 "$work/tidy.log" >&2; die "the modules could not be fetched; is GOPROXY reachable?"; }

say "compiling (a few minutes; nice 15, two jobs)"
started=$SECONDS
CGO_CFLAGS="-O3 -march=$march" CGO_CXXFLAGS="-O3 -march=$march -I$include" \
  nice -n 15 go build -trimpath -ldflags "-s -w -X github.com/ollama/ollama/version.Version=$version" \
  -o "$work/ollama" github.com/ollama/ollama >"$work/build.log" 2>&1 ||
  { grep -v warning "$work/build.log" | tail -n 30 >&2; die "the build failed"; }
mv "$work/ollama" "$binary"
say "built in $((SECONDS - started)) s, $(du -h "$binary" | cut -f1)"
echo "$binary"
