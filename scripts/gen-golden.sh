#!/usr/bin/env bash
# Writes the golden snapshots of rdb/testdata, and beside each what its server says about the keys, from real servers:
# started here on free ports of loopback, filled with every type and encoding, saved and stopped. Server binaries are
# taken from $KEYHAUL_SERVERS/bin (default ~/.cache/keyhaul/servers/bin); scripts/servers.sh builds them.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${KEYHAUL_SERVERS:-$HOME/.cache/keyhaul/servers}/bin
for name in redis-6.0 redis-7.0 redis-8.0 valkey-8.1 valkey-9.1; do
	if [[ ! -x $bin/$name-server ]]; then
		echo "gen-golden: $bin/$name-server is missing; scripts/servers.sh builds it" >&2
		exit 1
	fi
done

mkdir -p rdb/testdata
go run ./rdb/gen -out rdb/testdata
du -sh rdb/testdata
