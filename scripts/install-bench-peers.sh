#!/bin/sh
# Install what the benchmark suite compares with, if this is a Debian machine on
# which we may. What cannot be had is named in the suite's table.
set -u
missing=
command -v nginx >/dev/null 2>&1 || [ -x /usr/sbin/nginx ] || missing="$missing nginx"
ls /usr/lib/nginx/modules/ngx_nchan_module.so >/dev/null 2>&1 || missing="$missing libnginx-mod-nchan"
command -v gunicorn >/dev/null 2>&1 || missing="$missing gunicorn"
for module in flask gevent; do
	[ -d "/usr/lib/python3/dist-packages/$module" ] || missing="$missing python3-$module"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" -ne 0 ]; then
	echo "install-bench-peers: missing:$missing; install them by hand" >&2
	exit 0
fi
export DEBIAN_FRONTEND=noninteractive
{ apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; } >/dev/null 2>&1 ||
	echo "install-bench-peers: could not install:$missing" >&2
