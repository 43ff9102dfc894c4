#!/bin/sh
# Builds the web interface into web/dist/app, which the next `make build` takes
# into the program. With --if-possible a missing Node is no error, and a build
# that is newer than its sources is left as it is.
set -eu
cd "$(dirname "$0")/../web"

if ! command -v npm >/dev/null || ! command -v node >/dev/null; then
	if [ "${1:-}" = "--if-possible" ]; then
		if [ -f dist/app/index.html ]; then
			echo "There is no npm here: the program gets the web interface that was built before."
		else
			echo "There is no npm here: the program gets no web interface. Install Node 20 or newer, then: make ui build"
		fi
		exit 0
	fi
	echo "Node 20 or newer with npm is needed to build the web interface" >&2
	exit 1
fi
if [ "${1:-}" = "--if-possible" ] && [ -f dist/app/index.html ] &&
	[ -z "$(find src index.html vite.config.ts package-lock.json -newer dist/app/index.html -print -quit)" ]; then
	exit 0
fi
if [ ! -f node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
	npm ci --no-audit --no-fund --loglevel=error
fi
npm run --silent build
