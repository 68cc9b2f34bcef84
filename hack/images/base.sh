#!/usr/bin/env bash
# Makes sure that docker.io/library/debian:trixie-slim is in the local image store: pulled where a
# registry answers, else made from Debian's own packages (debootstrap, 30 s, needs root).
set -euo pipefail

image=docker.io/library/debian:trixie-slim
suite=trixie

die() {
  echo "hack/images/base.sh: $*" >&2
  exit 1
}

command -v buildah >/dev/null || die "buildah is not installed (apt-get install buildah)"
if [[ "${1:-}" != --fresh ]] && buildah images --quiet "$image" >/dev/null 2>&1; then
  exit 0
fi
if [[ "${1:-}" != --debootstrap ]] && timeout 60 buildah pull --quiet "$image" >/dev/null 2>&1; then
  echo "pulled $image" >&2
  exit 0
fi
command -v debootstrap >/dev/null || die "no registry answers, and debootstrap is not installed"
[[ $EUID == 0 ]] || die "no registry answers, and debootstrap needs root"

echo "no registry answers: making $image with debootstrap" >&2
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
root="$work/root"
debootstrap --variant=minbase "$suite" "$root" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$work/log" 2>&1 ||
  { tail -n 20 "$work/log" >&2; die "debootstrap failed"; }

# What the published slim image leaves out, now and when packages are added to it.
cat >"$root/etc/dpkg/dpkg.cfg.d/slim" <<'CFG'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/groff/*
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
CFG
printf 'APT::Install-Recommends "false";\n' >"$root/etc/apt/apt.conf.d/no-recommends"
find "$root/usr/share/doc" -type f ! -name copyright -delete
find "$root/usr/share/doc" -type l -delete
find "$root/usr/share/doc" -mindepth 1 -type d -empty -delete
rm -rf "$root"/usr/share/{groff,info,locale,man}/* "$root"/var/cache/apt/*.bin \
  "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/var/log/* \
  "$root"/var/cache/ldconfig/aux-cache
# This machine's name and resolver are no part of an image.
: >"$root/etc/hostname"
rm -f "$root/etc/resolv.conf"

tar -C "$root" --sort=name --numeric-owner --exclude='./proc/*' --exclude='./sys/*' \
  --exclude='./dev/*' -cf "$work/root.tar" .
printf 'FROM scratch\nADD root.tar /\nCMD ["bash"]\n' >"$work/Dockerfile"
buildah build --quiet --isolation chroot --tag "$image" --file "$work/Dockerfile" "$work" >/dev/null
echo "made $image" >&2
