#!/bin/sh
# Installs the npm clients that the tests of the event streams drive, at the
# versions of internal/api/sse/testdata/package.json, into a folder outside the
# repository. What is there already is kept.
#
#   install-node-tests.sh            install what is missing
#   install-node-tests.sh --print    print the folder and install nothing
#
# Without npm, or when it fails, the reason is printed and kept in the folder,
# and the tests that need the clients say so when they skip.
set -u

dir=${AGENTED_TEST_NODE:-${XDG_CACHE_HOME:-$HOME/.cache}/agented-test/node}
if [ "${1-}" = --print ]; then
	echo "$dir"
	exit 0
fi
source=$(dirname "$0")/../internal/api/sse/testdata/package.json
mkdir -p "$dir" || exit 1

skip() {
	echo "$1" >"$dir/reason.txt"
	echo "install-node-tests: $1; the tests that need the clients will say so" >&2
	exit 0
}

command -v npm >/dev/null 2>&1 || skip "npm is not installed: install Node.js 20 or later"
if [ -d "$dir/node_modules/eventsource" ] && cmp -s "$source" "$dir/package.json"; then
	exit 0
fi
rm -rf "${dir:?}/node_modules"
cp "$source" "$dir/package.json" || exit 1
if ! (cd "$dir" && npm install --package-lock=false --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error) >"$dir/install.log" 2>&1; then
	rm -rf "${dir:?}/node_modules" "$dir/package.json"
	skip "npm could not install the clients: $(grep -m 1 'npm error' "$dir/install.log" || tail -n 1 "$dir/install.log")"
fi
rm -f "$dir/reason.txt"
echo "install-node-tests: installed into $dir"
