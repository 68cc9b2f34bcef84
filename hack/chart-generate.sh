#!/usr/bin/env bash
# Writes every file that follows from the chart; with --check it fails where one has drifted.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${VENV:-.venv}/bin/python"
[[ -x "$python" ]] || python="${PYTHON:-python3}"
status=0
for script in chart_docs chart_network chart_steps chart_compose; do
  "$python" "hack/$script.py" "$@" || status=1
done
exit $status
