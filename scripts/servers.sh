#!/usr/bin/env bash
# Installs the servers that the tests run against.
#
#   scripts/servers.sh              redis-server and redis-cli of this system's own packages
#   scripts/servers.sh NAME ...     releases side by side, without touching the system's own; "all" for each of them
#
# Each NAME gets bin/NAME-server and bin/NAME-cli under $KEYHAUL_SERVERS (default ~/.cache/keyhaul/servers): small
# wrappers that start the release with its own C library, so that a server of a newer Debian suite runs on an older
# system. Both forms need apt-get; the first needs root or sudo, the second dpkg. Packages come from the mirror that
# this system's apt is already set to. What is installed already stays as it is, and nothing that runs is stopped.
set -euo pipefail

# NAME SUITE SERVER-PACKAGE TOOLS-PACKAGE PROGRAM
releases='
redis-6.0   bullseye            redis-server  redis-tools  redis
redis-7.0   bookworm            redis-server  redis-tools  redis
redis-8.0   sid                 redis-server  redis-tools  redis
valkey-8.0  bookworm-backports  valkey-server valkey-tools valkey
valkey-8.1  trixie              valkey-server valkey-tools valkey
valkey-9.1  sid                 valkey-server valkey-tools valkey
redict-7.3  bookworm-backports  redict-server redict-tools redict
'

# Libraries that a server's tools drag in and that neither server nor cli loads.
unneeded='^(libpam|libaudit|libsemanage|libselinux|libdb|libapparmor|libseccomp|libcryptsetup|libdevmapper|libmount'
unneeded+='|libblkid|libuuid|libfdisk|libacl|libattr|libkmod|libip|libjson|libbpf|libelf)'

fail() {
  echo "servers.sh: $*" >&2
  exit 1
}

as_root() {
  if ((EUID == 0)); then "$@"; else sudo -n "$@"; fi
}

install_system() {
  if command -v redis-server >/dev/null && command -v redis-cli >/dev/null; then return; fi
  command -v apt-get >/dev/null || fail "redis-server and redis-cli are missing, and this system has no apt-get: install them by hand"
  ((EUID == 0)) || sudo -n true 2>/dev/null || fail "redis-server and redis-cli are missing: run this as root, or install them by hand"
  # RUNLEVEL=1 makes the packages' own scripts leave the service alone: the tests start servers of their own
  local quiet=(env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0)
  as_root "${quiet[@]}" update >/dev/null || fail "apt-get update failed"
  as_root "${quiet[@]}" install --yes --no-install-recommends redis-server redis-tools >/dev/null ||
    fail "apt-get could not install redis-server and redis-tools"
  command -v redis-server >/dev/null || fail "redis-server is installed but not on PATH ($PATH)"
}

apt_mirror() {
  local file
  for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    [[ -r $file ]] || continue
    awk '/^URIs:/ {print $2; exit} /^deb / {for (i = 2; i <= NF; i++) if ($i ~ /:\/\//) {print $i; exit}}' "$file"
  done | head -n 1
}

# install_release NAME SUITE SERVER-PACKAGE TOOLS-PACKAGE PROGRAM
install_release() {
  local name=$1 suite=$2 server=$3 tools=$4 program=$5 root=$dir/$1
  if [[ -x $dir/bin/$name-server ]] && "$dir/bin/$name-server" --version >/dev/null 2>&1; then return; fi
  rm -rf "$root"
  mkdir -p "$dir/bin" "$root"/{lists/partial,cache,debs,files}
  # backports build against the suite that they are backported to, so their libraries come from it
  printf 'deb [trusted=yes] %s %s main\n' "$mirror" "$suite" >"$root/sources.list"
  if [[ $suite == *-backports ]]; then
    printf 'deb [trusted=yes] %s %s main\n' "$mirror" "${suite%-backports}" >>"$root/sources.list"
  fi
  : >"$root/status"
  local apt=(-oDir::Etc::SourceList="$root/sources.list" -oDir::Etc::SourceParts=/dev/null
    -oDir::State::Lists="$root/lists" -oDir::State::status="$root/status" -oDir::Cache="$root/cache"
    -oAPT::Sandbox::User=root -oAcquire::Languages=none)
  apt-get "${apt[@]}" -qq update || fail "$name: cannot read the package lists of $suite"
  local libraries
  mapfile -t libraries < <(apt-cache "${apt[@]}" depends --recurse --no-recommends --no-suggests --no-conflicts \
    --no-breaks --no-replaces --no-enhances "$tools" | grep -E '^(lib|lua|zlib1g)' | grep -vE "$unneeded" | sort -u)
  (cd "$root/debs" && apt-get "${apt[@]}" -qq download "$server/$suite" "$tools/$suite" "${libraries[@]}") ||
    fail "$name: cannot download $server and what it needs from $suite"
  local deb
  for deb in "$root"/debs/*.deb; do dpkg -x "$deb" "$root/files"; done
  write_wrappers "$name" "$program" "$root"
  rm -rf "$root"/{lists,cache,debs}
  "$dir/bin/$name-server" --version || fail "$name: the server does not start on this system"
}

# write_wrappers NAME PROGRAM ROOT
write_wrappers() {
  local name=$1 program=$2 root=$3 loader path which
  loader=$(find "$root/files" -name 'ld-linux-*.so.*' -print -quit)
  [[ -n $loader ]] || fail "$name: its packages hold no dynamic loader"
  path=$(find "$root/files" -name '*.so*' \( -type f -o -type l \) -printf '%h\n' | sort -u |
    grep -vE '/(gconv|engines-|ossl-modules|audit|security)' | paste -sd:)
  for which in server cli; do
    # shellcheck disable=SC2016 # "$@" is for the wrapper
    printf '#!/bin/sh\nexec "%s" --library-path "%s" "%s" "$@"\n' \
      "$loader" "$path" "$root/files/usr/bin/$program-$which" >"$dir/bin/$name-$which"
    chmod +x "$dir/bin/$name-$which"
  done
}

if (($# == 0)); then
  install_system
  exit
fi

names=$(awk 'NF {print $1}' <<<"$releases")
if [[ $* == all ]]; then mapfile -t wanted <<<"$names"; else wanted=("$@"); fi
for name in "${wanted[@]}"; do
  grep -qxF -- "$name" <<<"$names" || fail "unknown release $name; known are: ${names//$'\n'/ } all"
done
for tool in apt-get apt-cache dpkg; do
  command -v "$tool" >/dev/null || fail "releases are taken from Debian packages, and this system has no $tool"
done
mirror=$(apt_mirror)
[[ -n $mirror ]] || fail "no Debian mirror is set up for apt on this system"
dir=${KEYHAUL_SERVERS:-$HOME/.cache/keyhaul/servers}
mkdir -p "$dir/bin"
dir=$(cd "$dir" && pwd)
for name in "${wanted[@]}"; do
  read -ra row < <(awk -v name="$name" '$1 == name' <<<"$releases")
  install_release "${row[@]}"
done
