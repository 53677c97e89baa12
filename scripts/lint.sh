#!/usr/bin/env bash
# Runs formatter, vet and linters over everything, at the versions that scripts/tools.txt pins. All are run, also if one
# complains.
set -euo pipefail
cd "$(dirname "$0")/.."

tool() { scripts/tool.sh "$(grep -E "/$1@" scripts/tools.txt)"; }

gofumpt=$(tool gofumpt)
staticcheck=$(tool staticcheck)
golangci=$(tool golangci-lint)

failed=0
run() {
  echo "$1"
  shift
  "$@" || failed=1
}

formatted() {
  local files
  files=$("$gofumpt" -l .)
  [[ -z $files ]] && return
  echo "not formatted (run gofumpt -w):"
  echo "$files"
  return 1
}

run gofumpt formatted
run "go vet" go vet ./...
run staticcheck "$staticcheck" ./...
run golangci-lint "$golangci" run ./...
exit "$failed"
