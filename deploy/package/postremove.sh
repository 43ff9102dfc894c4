#!/bin/sh
# After the files of the package are gone. dpkg calls it with "purge" when the data
# must go too; rpm has no such step and keeps the data.
set -e

if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
fi
if [ "$1" = purge ]; then
	rm -rf /var/lib/agented /etc/agented
	if getent passwd agented >/dev/null; then
		userdel agented 2>/dev/null || true
	fi
	if getent group agented >/dev/null; then
		groupdel agented 2>/dev/null || true
	fi
fi
