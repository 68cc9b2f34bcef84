# shellcheck shell=bash disable=SC2119,SC2120
# What the chart's scripts share. Sourced, never run.
#
#   KUBECTL, HELM   commands, of several words if need be ("ssh forge sudo kubectl")
#   helm_here       a Helm of this machine, for rendering: HELM if it is one word, else the pinned one
#   die SENTENCE    exit code 1 with a sentence
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
chart=charts/synapse
: "${KUBECTL:=kubectl}" "${HELM:=}" "${NAMESPACE:=llm-infra}" "${RELEASE:=synapse}"
: "${VALUES:=values/forge.yaml}" "${REGISTRY:=}"

die() {
  echo "$*" >&2
  exit 1
}

k() {
  # Unquoted: KUBECTL may be several words.
  # shellcheck disable=SC2086
  $KUBECTL -n "$NAMESPACE" "$@"
}

need_values() {
  [[ -f "$VALUES" ]] || die "VALUES: there is no file $VALUES; values/ has one for each phase"
}

helm_here() {
  local command="${HELM:-helm}"
  if [[ "$command" == *" "* ]] || ! command -v "$command" >/dev/null; then
    command="$(hack/tools/install.sh helm4)"
  fi
  # Helm tells of the link to monitoring/ each time; nobody has to act on it.
  "$command" "$@" 2> >(grep -v "found symbolic link" >&2)
}

# Flags of every rendering: the file, and the registry if one is named.
value_flags() {
  need_values
  flags=(--values "$VALUES")
  [[ -z "$REGISTRY" ]] || flags+=(--set "images.registry=$REGISTRY")
}

render() {
  value_flags
  helm_here template "$RELEASE" "$chart" --namespace "$NAMESPACE" --skip-tests "${flags[@]}" "$@"
}

# upgrade [FLAG ...]: install or upgrade the release; with `stored` set, by the values that it has, and
# not by VALUES. A Helm on another machine (HELM="ssh ...") gets
# the packed chart and the values file through its own connection, in a folder of its own there.
upgrade() {
  value_flags
  [[ -z "${stored:-}" ]] || flags=(--reset-then-reuse-values)
  local command="${HELM:-helm}" target="$chart" elsewhere="" status=0
  local prefix="${command% *}"
  if [[ "$(basename "${command%% *}")" == ssh ]]; then
    local work
    work="$(mktemp -d)"
    helm_here package "$chart" --destination "$work" >/dev/null
    # shellcheck disable=SC2086
    elsewhere="$($prefix mktemp -d)"
    [[ "$elsewhere" == /*/* ]] || die "HELM: \`$prefix mktemp -d\` made no folder (it printed: $elsewhere)"
    # shellcheck disable=SC2086
    $prefix tee "$elsewhere/chart.tgz" <"$work"/synapse-*.tgz >/dev/null
    # shellcheck disable=SC2086
    $prefix tee "$elsewhere/values.yaml" <"$VALUES" >/dev/null
    rm -rf "$work"
    target="$elsewhere/chart.tgz"
    [[ -n "${stored:-}" ]] || flags[1]="$elsewhere/values.yaml"
  elif [[ "$command" != *" "* ]] && ! command -v "$command" >/dev/null; then
    command="$(hack/tools/install.sh helm4)"
  fi
  # shellcheck disable=SC2086
  $command upgrade --install "$RELEASE" "$target" --namespace "$NAMESPACE" --create-namespace \
    "${flags[@]}" "$@" || status=$?
  # shellcheck disable=SC2086
  [[ -z "$elsewhere" ]] || $prefix rm -r "$elsewhere"
  return $status
}
