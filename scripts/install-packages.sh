#!/bin/sh
# Install Debian packages that a long test wants, if they are missing and this
# is a Debian machine on which we may. What cannot be had is said, and the test
# says what it did without it.
#
#   install-packages.sh PROGRAM=PACKAGE...
set -u
missing=
for pair in "$@"; do
	command -v "${pair%%=*}" >/dev/null 2>&1 || missing="$missing ${pair#*=}"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" -ne 0 ]; then
	echo "install-packages: missing:$missing; install them by hand" >&2
	exit 0
fi
export DEBIAN_FRONTEND=noninteractive
{ apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; } >/dev/null 2>&1 ||
	echo "install-packages: could not install:$missing" >&2
