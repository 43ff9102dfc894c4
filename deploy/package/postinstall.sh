#!/bin/sh
# After the files of the package are in place: create the account, and start or
# restart the service. dpkg calls it with "configure [OLD_VERSION]", rpm with the
# number of installed versions.
set -e

case "$1" in
configure) [ -z "$2" ] && first=1 || first= ;;
1) first=1 ;;
2) first= ;;
*) exit 0 ;; # a failed removal or upgrade that dpkg rolls back
esac

if ! getent group agented >/dev/null; then
	groupadd --system agented
fi
if ! getent passwd agented >/dev/null; then
	useradd --system --gid agented --home-dir /var/lib/agented --no-create-home \
		--shell /usr/sbin/nologin --comment Agented agented
fi
if [ ! -d /var/lib/agented ]; then
	mkdir /var/lib/agented
	chown agented:agented /var/lib/agented
	chmod 0700 /var/lib/agented
fi
# The server reads its settings, root writes them.
chgrp agented /etc/agented /etc/agented/agented.env
chmod 0750 /etc/agented
chmod 0640 /etc/agented/agented.env

if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	if [ -n "$first" ]; then
		systemctl enable --quiet agented.service
		systemctl start agented.service || echo "agented: the service did not start; see: journalctl -u agented" >&2
	else
		# Running agents continue, and the new server adopts them.
		systemctl try-restart agented.service || echo "agented: the service did not restart; see: journalctl -u agented" >&2
	fi
elif [ -n "$first" ] && command -v systemctl >/dev/null; then
	systemctl enable --quiet agented.service || true
fi
if [ -n "$first" ]; then
	cat <<-'TEXT'
		Agented serves http://127.0.0.1:20000. Create your login with the one-time link:
		  sudo cat /var/lib/agented/data/setup-link
		Settings: /etc/agented/agented.env    Diagnosis: sudo -u agented -H agented doctor
	TEXT
fi
