#!/usr/bin/env bash
# Installs pinned command line tools into a cache and prints where each one is.
#
#   hack/tools/install.sh helm3 helm4 kubectl promtool redis-exporter kubernetes-validate crds etcd
#
# One line for each name, in the order given: the path of the executable; for
# kubernetes-validate the Python interpreter that can import it; for crds the folder that
# holds one file of definitions for each project. A tool that is there already is not touched
# (its version is part of its folder's name), so a second run only prints. Needs no root.
# Versions and hashes: versions.env beside this file.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/synapse/tools"
python="${PYTHON:-python3}"
# shellcheck source=hack/tools/versions.env
source "$here/versions.env"

die() {
  echo "install.sh: $*" >&2
  exit 1
}

need() {
  command -v "$1" >/dev/null || die "$1 is needed to install $2; install it and run again"
}

# once FOLDER FUNCTION ARGS...: runs FUNCTION with an empty work folder as its first argument
# and moves the result to FOLDER, unless FOLDER is there. Two runs at once do the work once.
once() {
  local target="$1" build="$2"
  shift 2
  [[ -d "$target" ]] && return
  mkdir -p "$cache"
  (
    flock 9
    [[ -d "$target" ]] && exit
    work="$(mktemp -d "$cache/.work.XXXXXX")"
    trap 'rm -rf "$work"' EXIT
    chmod 755 "$work"
    "$build" "$work" "$@" >&2
    mv "$work" "$target"
  ) 9>"$cache/.lock.$(basename "$target")"
}

from_kubectl_layer() {
  local work="$1" requirement="$2" sha256="$3"
  [[ "$(uname -sm)" == "Linux x86_64" ]] ||
    die "${requirement} holds programs for Linux on x86-64 only; this is $(uname -sm)"
  echo "$requirement --hash=sha256:$sha256" >"$work/requirement"
  "$python" -m pip download -q --no-deps --require-hashes -r "$work/requirement" -d "$work/wheel"
  "$python" -m zipfile -e "$work"/wheel/*.whl "$work/wheel"
  tar -xzf "$work"/wheel/aws_cdk/*/_jsii/*.tgz -C "$work/wheel"
  "$python" -m zipfile -e "$work/wheel/package/lib/layer.zip" "$work/layer"
  mv "$work/layer/helm/helm" "$work/layer/kubectl/kubectl" "$work/"
  chmod 755 "$work/helm" "$work/kubectl"
  rm -rf "$work/wheel" "$work/layer" "$work/requirement"
}

from_debian() {
  local work="$1" requirement
  shift
  need apt-get "$*"
  need dpkg "$*"
  for requirement in "$@"; do
    if ! (cd "$work" && apt-get -qq download "$requirement" 2>"$work/error"); then
      cat "$work/error" >&2
      die "the archive's list has no $requirement: run 'apt-get update' (as root), or change the" \
        "pin in hack/tools/versions.env to what 'apt-cache policy ${requirement%%=*}' shows"
    fi
  done
  for package in "$work"/*.deb; do
    dpkg -x "$package" "$work"
  done
  rm -rf "${work:?}"/{*.deb,error,etc,lib,var,usr/share}
}

# Debian ships the server as a second name of redis-check-rdb, which acts by the name it is called.
redis_server() {
  local work="$1" final="$2"
  shift 2
  from_debian "$work" "$@"
  ln -sf redis-check-rdb "$work/usr/bin/redis-server"
  cat >"$work/redis-server" <<WRAPPER
#!/bin/sh
LD_LIBRARY_PATH="\$(echo "$final"/usr/lib/*-linux-gnu)" exec "$final/usr/bin/redis-server" "\$@"
WRAPPER
  chmod 755 "$work/redis-server"
}

kubernetes_validate() {
  local work="$1"
  "$python" -m venv "$work"
  "$work/bin/python" -m pip install -q --only-binary :all: --require-hashes \
    -r "$here/kubernetes-validate.lock"
  # The console scripts name the work folder; the interpreter alone is what callers use.
  rm -f "$work"/bin/pip* "$work"/bin/activate* "$work"/bin/Activate* \
    "$work"/bin/kubernetes-validate "$work"/bin/jsonschema
}

# One file a project: every CustomResourceDefinition of the folder, one YAML document each.
crds() {
  local work="$1" name pin module folder source
  need go "the custom resource definitions"
  for name in ${!CRDS_*}; do
    pin="${!name}"
    module="${pin%%:*}"
    folder="${pin#*:}"
    source="$(cd "$work" && GOFLAGS=-mod=mod GOTOOLCHAIN="${GOTOOLCHAIN:-local}" \
      go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')"
    [[ -e "$source/$folder" ]] || die "$module has no $folder"
    name="${name#CRDS_}"
    name="${name,,}"
    for file in $(find "$source/$folder" -type f \( -name '*.yaml' -o -name '*.yml' \) | sort); do
      grep -q '^kind: CustomResourceDefinition' "$file" || continue
      echo "---"
      cat "$file"
      echo
    done >"$work/${name//_/-}.yaml"
    [[ -s "$work/${name//_/-}.yaml" ]] || die "$module:$folder holds no definitions"
  done
}

install() {
  local name="$1" target
  case "$name" in
  helm3)
    target="$cache/helm-$HELM3_VERSION"
    once "$target" from_kubectl_layer "$HELM3_WHEEL" "$HELM3_SHA256"
    echo "$target/helm"
    ;;
  helm4 | kubectl)
    target="$cache/helm-$HELM4_VERSION"
    once "$target" from_kubectl_layer "$HELM4_WHEEL" "$HELM4_SHA256"
    [[ "$name" == helm4 ]] && echo "$target/helm" || echo "$target/kubectl"
    ;;
  promtool | prometheus)
    target="$cache/prometheus-${PROMETHEUS_DEBIAN##*=}"
    target="${target%.\*}"
    once "$target" from_debian "$PROMETHEUS_DEBIAN"
    echo "$target/usr/bin/$name"
    ;;
  redis-exporter)
    target="$cache/redis-exporter-${REDIS_EXPORTER_DEBIAN##*=}"
    target="${target%.\*}"
    once "$target" from_debian "$REDIS_EXPORTER_DEBIAN"
    echo "$target/usr/bin/prometheus-redis-exporter"
    ;;
  etcd)
    target="$cache/etcd-${ETCD_DEBIAN##*=}"
    target="${target%.\*}"
    once "$target" from_debian "$ETCD_DEBIAN"
    echo "$target/usr/bin/etcd"
    ;;
  redis-server)
    target="${REDIS_SERVER_DEBIAN%% *}" # redis-tools=<epoch>:<version>.*; a path may hold no colon
    target="${target##*:}"
    target="$cache/redis-server-${target%.\*}"
    # shellcheck disable=SC2086 # a list of packages
    once "$target" redis_server "$target" $REDIS_SERVER_DEBIAN
    echo "$target/redis-server"
    ;;
  kubernetes-validate)
    target="$cache/kubernetes-validate-$KUBERNETES_VALIDATE_VERSION"
    once "$target" kubernetes_validate
    echo "$target/bin/python"
    ;;
  crds)
    # Named after what it holds: a changed pin is another folder.
    target="$cache/crds-$(grep '^CRDS_' "$here/versions.env" | sha256sum | cut -c1-12)"
    once "$target" crds
    echo "$target"
    ;;
  *)
    die "unknown tool '$name': expected helm3, helm4, kubectl, promtool, prometheus," \
      "redis-exporter, redis-server, etcd, kubernetes-validate or crds"
    ;;
  esac
}

[[ $# -gt 0 ]] || die "name the tools to install, for example: hack/tools/install.sh helm4 promtool"
for tool in "$@"; do
  install "$tool"
done
