#!/usr/bin/env bash
# Runs every fuzz target for a while each.
#
#   scripts/fuzz.sh [TIME]    TIME is that of one target, such as 30s (default 10s)
#
# A crasher is kept in testdata/fuzz of its package: commit it with the fix.
set -euo pipefail
cd "$(dirname "$0")/.."

time=${1:-10s}
found=0 failed=0
while IFS=: read -r file name; do
  found=1
  if output=$(go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 10s "./$(dirname "$file")" 2>&1); then
    printf 'fuzz  %s %s: %s\n' "$(dirname "$file")" "$name" "$(grep -oE 'execs: [0-9]+' <<<"$output" | tail -n 1)"
  elif grep -q '^ *context deadline exceeded$' <<<"$output" && ! grep -qE 'Failing input|panic|_test\.go' <<<"$output"; then
    # the fuzzer sometimes takes the end of its own time for a failure; there is no failing input then
    printf 'fuzz  %s %s: time was up\n' "$(dirname "$file")" "$name"
  else
    failed=1
    echo "$output"
  fi
done < <(git ls-files -co --exclude-standard '*_test.go' | xargs grep -HoE '^func Fuzz[A-Za-z0-9_]+' | sed 's/:func /:/')
((found)) || {
  echo "fuzz.sh: no fuzz target found" >&2
  exit 1
}
exit "$failed"
