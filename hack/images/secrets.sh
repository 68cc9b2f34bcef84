# shellcheck shell=bash disable=SC2034
# Sourced: shows this machine's pip settings and certificates to a build, and to no layer. Sets
# `secrets`, a temporary directory that the caller removes, and `secret_flags`.
secrets="$(mktemp -d)"
secret_flags=(--secret "id=pip.conf,src=$secrets/pip.conf" --secret "id=ca,src=$secrets/ca")
: >"$secrets/ca"
{
  echo "[global]"
  if [[ -f /etc/ssl/certs/ca-certificates.crt ]]; then
    cp /etc/ssl/certs/ca-certificates.crt "$secrets/ca"
    echo "cert = /run/secrets/ca"
  fi
  python3 -m pip config list 2>/dev/null |
    sed -nE "s/^[^=]*[.](default-)?(index-url|extra-index-url|timeout)='?([^']*)'?\$/\2 = \3/p" |
    awk '!seen[$1]++' || true
} >"$secrets/pip.conf"
