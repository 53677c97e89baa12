#!/usr/bin/env bash
# Writes internal/command/table.go from what real servers answer to COMMAND: one Redis and one Valkey, started here
# without a port, on a socket in a temporary directory, and stopped at the end. Server binaries are taken from
# $KEYHAUL_SERVERS/bin (default ~/.cache/keyhaul/servers/bin).
set -euo pipefail
cd "$(dirname "$0")/.."

servers=(redis-8.0 valkey-9.1)
bin=${KEYHAUL_SERVERS:-$HOME/.cache/keyhaul/servers}/bin

for name in "${servers[@]}"; do
	if [[ ! -x $bin/$name-server ]]; then
		echo "gen-commands: $bin/$name-server is missing; scripts/servers.sh builds it" >&2
		exit 1
	fi
done

tmp=$(mktemp -d)
pids=()
cleanup() {
	for pid in "${pids[@]}"; do
		kill "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
	rm -rf "$tmp"
}
trap cleanup EXIT

sockets=()
for name in "${servers[@]}"; do
	mkdir "$tmp/$name"
	"$bin/$name-server" --port 0 --unixsocket "$tmp/$name/socket" --dir "$tmp/$name" --save '' --daemonize no \
		>"$tmp/$name/log" 2>&1 &
	pids+=($!)
	sockets+=("$tmp/$name/socket")
done

for name in "${servers[@]}"; do
	for _ in {1..100}; do
		grep -q 'Ready to accept connections' "$tmp/$name/log" && continue 2
		sleep 0.1
	done
	echo "gen-commands: $name did not start:" >&2
	cat "$tmp/$name/log" >&2
	exit 1
done

go run ./internal/command/gen -out "$tmp/table.go" "${sockets[@]}"
mv "$tmp/table.go" internal/command/table.go
