#!/usr/bin/env bash
# Asks the running deployment, from inside one of its pods: health, an embedding, or speech.
#
#   hack/chart-probe.sh health|embed|tts      MODEL and VOICE name others than the first that fits
#
# The program goes in through standard input, so it also works through "ssh forge sudo kubectl".
set -euo pipefail
# shellcheck source=hack/chart-lib.sh
source "$(dirname "$0")/chart-lib.sh"

verb="${1:-health}"
[[ "$verb" != health ]] || k get pods -o wide
if k get deployment synapse-gateway >/dev/null 2>&1; then
  k exec -i deployment/synapse-gateway -c gateway -- python3 - "$verb" "${MODEL:--}" "${VOICE:--}" \
    <hack/probe_gateway.py
elif k get deployment ollama >/dev/null 2>&1; then
  [[ "$verb" != tts ]] || die "there is no gateway in $NAMESPACE; speech comes with phase 4"
  # The engine's image has bash and no HTTP client.
  k exec -i deployment/ollama -- bash -s "$verb" "${MODEL:-mxbai-embed-large}" <hack/probe-ollama.sh
else
  die "neither the gateway nor Ollama runs in $NAMESPACE: make deploy"
fi
