#!/bin/sh
# Before the files of the package go: stop the service and end running agents. An
# upgrade stops nothing. dpkg calls it with "remove" or "upgrade VERSION", rpm with
# the number of versions that remain.
set -e

case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
	systemctl disable --now --quiet agented.service || true
	# A stop leaves agents to their shims. Without the program they have no purpose.
	systemctl kill --kill-who=all --signal=SIGTERM agented.service 2>/dev/null || true
elif command -v systemctl >/dev/null; then
	systemctl disable --quiet agented.service || true
fi
