#!/bin/sh
# Sees to it that promtool is there for the tests of deploy/alerts.yml: it is
# taken out of Debian's package, so that no Prometheus is installed and started.
# With --print it only says where it is: nothing, with the reason on standard
# error, when it is not.
set -eu
cache=${XDG_CACHE_HOME:-$HOME/.cache}/agented/promtool

found() {
	for c in "${PROMTOOL:-}" "$(command -v promtool || true)" "$cache/usr/bin/promtool"; do
		if [ -n "$c" ] && [ -x "$c" ]; then
			echo "$c"
			return 0
		fi
	done
	return 1
}

if [ "${1:-}" = "--print" ]; then
	found || { echo "no promtool here: run scripts/install-promtool.sh, or set PROMTOOL to its path" >&2; exit 0; }
	exit 0
fi
if found >/dev/null; then
	exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
	echo "no promtool here, and it can be fetched only on a Debian: set PROMTOOL to its path" >&2
	exit 0
fi
mkdir -p "$cache"
cd "$cache"
{ apt-get download prometheus && dpkg-deb -x prometheus_*.deb . && rm -f prometheus_*.deb; } >&2 ||
	echo "promtool could not be fetched: the alert rules are not tried" >&2
