#!/bin/sh
# The tests of the web interface: its types against the program, its parts, and
# all of it in a real browser. The program is built, interface included. With
# --if-possible a missing Node or Chromium leaves out what needs it, and says so.
set -eu
cd "$(dirname "$0")/.."

if ! command -v npm >/dev/null; then
	if [ "${1:-}" = "--if-possible" ]; then
		echo "There is no npm here: the tests of the web interface are left out."
		exit 0
	fi
	echo "Node 20 or newer with npm is needed for the tests of the web interface" >&2
	exit 1
fi
bin=${AGENTED_BIN:-$PWD/bin/agented}
[ -x "$bin" ] || { echo "build the program first: make ui build" >&2; exit 1; }
AGENTED_BIN=$bin ./scripts/web-types.sh --check
(cd web && npm test --silent)
./scripts/install-chromium.sh
chromium=$(./scripts/install-chromium.sh --print)
if [ -z "$chromium" ]; then
	[ "${1:-}" = "--if-possible" ] && exit 0
	exit 1
fi
cd web
AGENTED_BIN=$bin CHROMIUM=$chromium exec timeout 900 node e2e/run.mjs
