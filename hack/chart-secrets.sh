#!/usr/bin/env bash
# Applies GATEWAY_SECRETS_FILE; refuses while a placeholder is left in it.
set -euo pipefail
# shellcheck source=hack/chart-lib.sh
source "$(dirname "$0")/chart-lib.sh"

file="${GATEWAY_SECRETS_FILE:-values/examples/gateway-secrets.yaml}"
[[ -f "$file" ]] || die "GATEWAY_SECRETS_FILE: there is no file $file"
left="$(grep -nE '^[^#]*REPLACE_ME' "$file" | cut -d: -f1 | paste -sd, -)" || true
[[ -z "$left" ]] || die "$file: line(s) $left still hold the placeholder REPLACE_ME; write real values"
k apply -f - <"$file"
