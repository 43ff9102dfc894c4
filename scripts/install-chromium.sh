#!/bin/sh
# Sees to it that Chromium is there for the tests of the web interface. With
# --print it only says where it is: nothing, with the reason on standard error,
# when it is not.
set -eu

found() {
	for c in "${CHROMIUM:-}" /usr/bin/chromium /usr/bin/chromium-browser; do
		if [ -n "$c" ] && [ -x "$c" ]; then
			echo "$c"
			return 0
		fi
	done
	return 1
}

if [ "${1:-}" = "--print" ]; then
	found || { echo "no Chromium here: run scripts/install-chromium.sh, or set CHROMIUM to its path" >&2; exit 0; }
	exit 0
fi
if found >/dev/null; then
	exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "no Chromium here, and it can be installed only by root on a Debian: set CHROMIUM to its path" >&2
	exit 0
fi
export DEBIAN_FRONTEND=noninteractive
{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } >&2 ||
	echo "Chromium could not be installed: the tests in a browser are left out" >&2
