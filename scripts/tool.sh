#!/usr/bin/env bash
# Prints the path of a Go tool at a pinned version; installs it into build/bin if it is not there yet.
#
#   scripts/tool.sh PACKAGE@VERSION
#
# A copy of the same version in Go's own bin folder is used as it is.
set -euo pipefail
cd "$(dirname "$0")/.."

package=${1%@*} version=${1##*@}
name=${package##*/}
own=$PWD/build/bin
gobin=$(go env GOBIN)

for dir in "$own" "${gobin:-$(go env GOPATH)/bin}"; do
  if [[ -x $dir/$name ]] &&
    go version -m "$dir/$name" | awk -v v="$version" '$1 == "mod" && $3 == v {found = 1} END {exit !found}'; then
    echo "$dir/$name"
    exit
  fi
done
echo "installing $package@$version into build/bin" >&2
mkdir -p "$own"
GOBIN=$own go install "$package@$version" >&2
echo "$own/$name"
