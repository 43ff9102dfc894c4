#!/bin/sh
# Remove ./data, the folder of `make run`, after asking.
set -eu
cd "$(dirname "$0")/.."
dir="$PWD/data"
[ -d "$dir" ] || { echo "there is no $dir"; exit 0; }
if [ "${1:-}" != --yes ]; then
	printf 'Remove %s with all triggers, executions and logs? [y/N] ' "$dir"
	read -r answer
	case "$answer" in y|Y|yes) ;; *) echo "kept"; exit 1;; esac
fi
rm -rf -- "$dir"
echo "removed $dir"
