#!/usr/bin/env bash
# Runs the Job that brings the models of VALUES into Ollama again, and follows its log. Models that are
# there already cost nothing.
set -euo pipefail
# shellcheck source=hack/chart-lib.sh
source "$(dirname "$0")/chart-lib.sh"

job="$(render --show-only templates/ollama/pull-job.yaml 2>/dev/null)" ||
  die "$VALUES: no model has a target on an Ollama that runs here, so there is nothing to pull"
name="$(awk '/^  name: ollama-pull-/ { print $2; exit }' <<<"$job")"
k delete job "$name" --ignore-not-found
k apply -f - <<<"$job"
k wait --for=jsonpath='{.status.ready}'=1 --timeout=300s "job/$name" || true
k logs -f "job/$name"
k wait --for=condition=complete --timeout=60s "job/$name"
