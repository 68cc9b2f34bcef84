#!/usr/bin/env bash
# Checks gitops/ offline, as its Argo CD would: objects against Argo CD's own definitions, rights of the
# projects, and every Application rendered with its own flags. Prints a tally.
#
#   hack/validate-gitops.sh [--cluster NAME] [FOLDER]     FOLDER is gitops unless named
set -euo pipefail
cd "$(dirname "$0")/.."
exec "$(hack/tools/install.sh kubernetes-validate)" hack/gitops_check.py "$@"
