#!/usr/bin/env bash
# Breaks hauls under load for an hour or so, in the long forms of the tests whose names begin with TestSoak, and writes what came
# of it into a log.
#
#   scripts/soak/run.sh [LOG [TEST]]      LOG is docs/soak.log, TEST the regular expression of go test -run
#
# KEYHAUL_TEST_ROUNDS is the number of faults in a row (30), KEYHAUL_TEST_PARALLEL that of hauls at once (4).
# KEYHAUL_TEST_SERVER names the release of the servers. The
# whole output of the tests goes to build/soak.out. Fails if a test fails, or if one that is run again without fences
# finds no difference.
set -euo pipefail
cd "$(dirname "$0")/../.."

log=${1:-docs/soak.log}
tests=${2:-^TestSoak}
export KEYHAUL_TEST_ROUNDS=${KEYHAUL_TEST_ROUNDS:-30}
output=build/soak.out
mkdir -p build "$(dirname "$log")"
: >"$output"

# results prints each test's outcome, and below it what the test said of itself.
results() {
  awk '
    /^=== / { name = $3; next }
    /^ *soak_[a-z_]+_test\.go:[0-9]+: / { sub(/^ *soak_[a-z_]+_test\.go:[0-9]+: /, ""); said[name] = said[name] "        " $0 "\n"; next }
    /^ *--- (PASS|FAIL|SKIP): / { printf "%s  %s %s\n%s", substr($2, 1, 4), $3, $4, said[$3] }
    /^panic: |DATA RACE/ { print }
  ' "$1"
}

server=${KEYHAUL_TEST_SERVER:-redis-server}
if [[ $server != redis-server && $server != */* ]]; then
  server=${KEYHAUL_SERVERS:-$HOME/.cache/keyhaul/servers}/bin/$server-server
fi

failed=0
new=build/soak.log part=build/soak.part
blind='^TestSoak(Kill|Cut)$/^(standalone|cluster)$/^(same_state_directory|target_lanes)$'

# run NAME ENVIRONMENT... -- ARGUMENTS OF GO TEST: one part of the log.
run() {
  local name=$1 environment=() began=$SECONDS code=0
  shift
  while [[ $1 != -- ]]; do
    environment+=("$1")
    shift
  done
  shift
  echo "soak: $name" >&2
  env "${environment[@]}" go test ./cmd/keyhaul -count=1 -v -parallel "${KEYHAUL_TEST_PARALLEL:-4}" -timeout 8h "$@" >"$part" 2>&1 </dev/null || code=$?
  cat "$part" >>"$output"
  printf '\n## %s\n\n' "$name"
  results "$part"
  printf '\n%s after %d s\n' "$( ((code == 0)) && echo "all passed" || echo "FAILED")" $((SECONDS - began))
  return "$code"
}

{
  echo "commit   $(git rev-parse HEAD)$(git diff --quiet HEAD -- || echo ", with changes")"
  echo "date     $(date -u +%Y-%m-%dT%H:%M:%SZ)"
  echo "servers  $("$server" --version)"
  echo "machine  $(nproc) cores, $(uname -sr), $(go env GOVERSION)"
  echo "rounds   $KEYHAUL_TEST_ROUNDS"
  run "with fences" -- -run "$tests" || failed=1
  # the same tests are to see that nothing prevents repetitions now
  run "without fences: each must find differences" KEYHAUL_TEST_FENCES=off KEYHAUL_TEST_ROUNDS=5 -- -run "$blind" || true
  if (($(grep -c 'source and target differ' "$part") != 4)); then
    echo "some test found none"
    failed=1
  fi
} >"$new"
mv "$new" "$log"

echo "soak: results are in $log" >&2
exit "$failed"
