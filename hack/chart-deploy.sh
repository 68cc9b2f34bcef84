#!/usr/bin/env bash
# Installs or upgrades the release from VALUES.
#
#   hack/chart-deploy.sh              everything in VALUES
#   hack/chart-deploy.sh ollama       the same, but refuses if VALUES does not switch Ollama on
#
# When the Service `ollama` changes hands from the engine to the gateway (phase 2 to 3), this takes two
# steps: first the gateway with the name left where it is, then, with gateway pods ready, the name. So
# no request meets a Service without a pod behind it. Back it takes three: the name goes to the engine,
# the gateway ends what it has begun while its backends and policies are still there, and then it goes.
set -euo pipefail
# shellcheck source=hack/chart-lib.sh
source "$(dirname "$0")/chart-lib.sh"

# switched COMPONENT: whether VALUES (or else the chart's defaults) enables it; prints the line to
# change if it does not.
switched() {
  local component="$1" line
  line="$(awk -v name="$component:" '
    index($0, name) == 1 { inside = 1; if ($0 ~ /enabled: *(true|false)/) { print NR ":" $0; exit }; next }
    /^[^ #]/ { inside = 0 }
    inside && /^  enabled:/ { print NR ":" $0; exit }' "$VALUES")"
  case "$line" in
    *"enabled: true"*) return 0 ;;
    *"enabled: false"*)
      echo "$VALUES:${line%%:*}: $component.enabled is false; change that line to \`enabled: true\`" >&2
      return 1
      ;;
  esac
  if awk -v name="$component:" 'index($0, name) == 1 { inside = 1; next } /^[^ #]/ { inside = 0 }
      inside && /^  enabled: true/ { found = 1 } END { exit !found }' "$chart/values.yaml"; then
    return 0
  fi
  printf '%s does not switch %s on; add to it:\n\n%s:\n  enabled: true\n' \
    "$VALUES" "$component" "$component" >&2
  return 1
}

# any_of COMPONENT ...: whether VALUES enables one of them; prints the line for the first if it does not.
any_of() {
  local component
  for component in "$@"; do
    switched "$component" 2>/dev/null && return
  done
  switched "$1"
}

need_values
case "${1:-}" in
  "") ;;
  ollama) switched ollama || exit 1 ;;
  llm) any_of llama-router vllm sglang tensorrt-llm || exit 1 ;;
  stt) any_of whisper-stt speaches || exit 1 ;;
  speaker) switched pyannote-speaker || exit 1 ;;
  audio) switched deepfilter-audio || exit 1 ;;
  terminal-feed-bus) switched terminal-feed-redis || exit 1 ;;
  *) die "there is no component $1; ollama, llm, stt, speaker, audio, terminal-feed-bus" ;;
esac

# engine_is_ollama: whether VALUES has no gateway, so that the engine itself has the name
engine_is_ollama() {
  render --show-only templates/ollama/service.yaml 2>/dev/null |
    awk '$1 == "name:" { name = $2; exit } END { exit name != "ollama" }'
}

# selector_of: which pods a manifest of the Service `ollama` on standard input selects
selector_of() {
  awk '/^  selector:/ { inside = 1; next } inside && /^  [a-z]/ { exit }
    inside && $1 == "app.kubernetes.io/name:" { gsub(/"/, "", $2); print $2; exit }'
}

now="$(k get service ollama -o yaml 2>/dev/null | selector_of || true)"
then="$(render --show-only templates/ollama/alias-service.yaml 2>/dev/null | selector_of || true)"
if [[ "$now" == ollama && "$then" == synapse-gateway ]]; then
  echo "step 1 of 2: the gateway starts; the Service ollama stays with the engine"
  upgrade --set gateway.ollamaService.holdBack=true --wait --timeout 30m
  echo "step 2 of 2: the Service ollama goes to the gateway"
elif [[ "$now" == synapse-gateway ]] && engine_is_ollama; then
  echo "step 1 of 3: the Service ollama goes back to the engine"
  stored=yes upgrade --set gateway.ollamaService.holdBack=true --wait --timeout 30m
  echo "step 2 of 3: the gateway ends what it has begun"
  k scale deployment/synapse-gateway --replicas=0
  k wait --for=delete pod --selector app.kubernetes.io/name=synapse-gateway --timeout 30m
  echo "step 3 of 3: the gateway goes"
fi
upgrade --wait --timeout 60m
