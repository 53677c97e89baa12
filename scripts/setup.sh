#!/usr/bin/env bash
# Installs what the tests need beside Go, from the system's own packages: redis-server, and a C compiler for the race
# detector. What is there already stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/servers.sh

if ! command -v "$(go env CC)" >/dev/null; then
  command -v apt-get >/dev/null || {
    echo "setup.sh: the race detector needs a C compiler, and this system has no apt-get: install one by hand" >&2
    exit 1
  }
  as_root() { if ((EUID == 0)); then "$@"; else sudo -n "$@"; fi; }
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 update >/dev/null
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 install --yes --no-install-recommends gcc libc6-dev >/dev/null
fi
