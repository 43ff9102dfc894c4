#!/bin/sh
# The tests of the web interface: its types against the program, its parts, and
# all of it in a real browser. The program is built, interface included. With
# --if-possible a missing Node or Chromium leaves out what needs it, and says so.
# With --smoke only a few cases run in the browser. A case that fails is run
# RERUN times more, and is then listed in bin/flaky-browser.txt; screenshots and
# traces of failures are in web/test-results.
set -eu
cd "$(dirname "$0")/.."
optional= smoke=
for arg in "$@"; do
	case $arg in
	--if-possible) optional=1 ;;
	--smoke) smoke=1 ;;
	*) echo "unexpected argument $arg" >&2; exit 2 ;;
	esac
done

if ! command -v npm >/dev/null; then
	if [ -n "$optional" ]; then
		echo "There is no npm here: the tests of the web interface are left out."
		exit 0
	fi
	echo "Node 20 or newer with npm is needed for the tests of the web interface" >&2
	exit 1
fi
bin=${AGENTED_BIN:-$PWD/bin/agented}
[ -x "$bin" ] || { echo "build the program first: make ui build" >&2; exit 1; }
# Side by side; nothing is left running when one of them fails.
trap wait EXIT
AGENTED_BIN=$bin ./scripts/web-types.sh --check &
types=$!
(cd web && npm run --silent lint) &
lint=$!
(cd web && npm test --silent) &
unit=$!
finish() {
	wait "$types"
	wait "$lint"
	wait "$unit"
}
# The cases of the smoke run mostly wait, so they run at the same time as the other parts; the complete suite does not.
if [ -z "$smoke" ]; then finish; fi
./scripts/install-chromium.sh
chromium=$(./scripts/install-chromium.sh --print)
if [ -z "$chromium" ]; then
	if [ -n "$smoke" ]; then finish; fi
	[ -n "$optional" ] && exit 0
	exit 1
fi
CGO_ENABLED=0 go build -o bin/contain ./scripts/contain
contain=$PWD/bin/contain
cd web
rm -f ../bin/flaky-browser.txt
browser() { AGENTED_BIN=$bin CHROMIUM=$chromium "$contain" timeout 1800 node node_modules/@playwright/test/cli.js test --project="$1"; }
if [ -n "$smoke" ]; then
	browser smoke
	finish
	exit
fi
failed=
browser alone || failed=1 # it measures time
browser rest || failed=1
[ -z "$failed" ]
