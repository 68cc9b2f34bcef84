# shellcheck shell=bash
# Runs inside Ollama's pod: lists its models, or asks for an embedding and prints its length.
set -euo pipefail
verb="$1" model="$2"
ask() {
  local method="$1" path="$2" body="${3:-}"
  exec 3<>/dev/tcp/127.0.0.1/11434
  printf '%s %s HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' \
    "$method" "$path" "${#body}" "$body" >&3
  cat <&3
  exec 3>&-
}
if [[ "$verb" == health ]]; then
  ask GET /api/tags | grep -o '"name":"[^"]*"' || { echo "Ollama has no model yet"; exit 1; }
else
  answer="$(ask POST /api/embed "{\"model\":\"$model\",\"input\":\"hello\"}")"
  numbers="$(grep -o '\[\[[^]]*' <<<"$answer" | tr ',' '\n' | wc -l)"
  [[ "$numbers" -gt 8 ]] || { echo "no embedding: $answer" >&2; exit 1; }
  echo "embedding $model by ollama: $numbers dimensions"
fi
