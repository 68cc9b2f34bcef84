#!/usr/bin/env bash
# Writes locks/*.txt: every package pinned, with the hashes of the registry's files, for Python
# 3.11 to 3.13. Pins already in a lock are kept; `hack/lock.sh --upgrade` takes the newest.
# `hack/lock.sh --check` writes nothing and fails when a lock no longer fits pyproject.toml.
set -euo pipefail
cd "$(dirname "$0")/.."

# Local builds have hashes that no other machine has.
unset PIP_FIND_LINKS UV_FIND_LINKS

mode=write
upgrade=()
case "${1:-}" in
  "") ;;
  --check) mode=check ;;
  --upgrade) upgrade=(--upgrade) ;;
  *) echo "usage: hack/lock.sh [--check | --upgrade]" >&2; exit 2 ;;
esac

uv=$(command -v uv || true)
[ -x .venv/bin/uv ] && uv=.venv/bin/uv
if [ -z "$uv" ]; then
  echo "hack/lock.sh: uv is not installed; run: .venv/bin/python -m pip install uv" >&2
  exit 1
fi

target=locks
if [ "$mode" = check ]; then
  target=$(mktemp -d)
  trap 'rm -rf "$target"' EXIT
  cp locks/*.txt "$target/"
fi

compile() { # compile NAME [arguments of uv pip compile]
  local name=$1; shift
  "$uv" pip compile pyproject.toml --quiet --universal --python-version 3.11 \
    --fork-strategy fewest --generate-hashes --no-annotate \
    --no-emit-index-url --no-emit-find-links \
    --excludes locks/excludes.txt --custom-compile-command "make lock" \
    ${upgrade[@]+"${upgrade[@]}"} "$@" --output-file "$target/$name.txt"
}

# The largest first: the smaller ones are cut from it, so that all three agree on every version.
compile test --group build --group embedded --group test
compile embedded --group build --group embedded --constraints "$target/test.txt"
compile gateway --group build --constraints "$target/test.txt"

if grep -nE '://|find-links|index-url|@ *file' "$target"/{gateway,embedded,test}.txt; then
  echo "hack/lock.sh: a lock names a host or a path" >&2
  exit 1
fi
if [ "$mode" = check ] && ! diff -r locks "$target"; then
  echo "hack/lock.sh: the locks do not fit pyproject.toml; run: make lock" >&2
  exit 1
fi
