#!/usr/bin/env bash
# Runs every fuzz target for a while each.
#
#   scripts/fuzz.sh [TIME]    TIME is that of one target, such as 30s (default 10s)
#
# A crasher is kept in testdata/fuzz of its package: commit it with the fix.
set -euo pipefail
cd "$(dirname "$0")/.."

time=${1:-10s}
found=0
while IFS=: read -r file name; do
  found=1
  go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 10s "./$(dirname "$file")"
done < <(git ls-files -co --exclude-standard '*_test.go' | xargs grep -HoE '^func Fuzz[A-Za-z0-9_]+' | sed 's/:func /:/')
((found)) || { echo "fuzz.sh: no fuzz target found" >&2; exit 1; }
