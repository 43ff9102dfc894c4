#!/bin/sh
# Checks Agented as a systemd service on a real systemd: a container boots on a
# throw-away layer over this machine's own root and runs deploy/test/check in it.
# Nothing on the machine itself is changed. Needs root and systemd-nspawn.
#
#   run.sh          everything
#   run.sh user     only the service of a user
#
# Exit codes: 0 all well, 1 something is wrong, 77 it cannot be checked here.
set -eu
cd "$(dirname "$0")/../.."

cannot() {
	echo "=================================================================" >&2
	echo "NOT CHECKED: the systemd service. $1" >&2
	echo "=================================================================" >&2
	exit 77
}

[ "$(uname -s)" = Linux ] || cannot "This is no Linux."
[ "$(id -u)" -eq 0 ] || cannot "It needs root (sudo make test-service)."
command -v systemctl >/dev/null && [ -x /lib/systemd/systemd ] || cannot "systemd is not installed."
./scripts/install-packages.sh systemd-nspawn=systemd-container bwrap=bubblewrap
command -v systemd-nspawn >/dev/null || cannot "systemd-nspawn is missing (Debian: systemd-container)."

dir=$(mktemp -d)
name=agented-check-$$
mounted=
cleanup() {
	[ -z "$mounted" ] || umount "$dir/root" || umount -l "$dir/root"
	mountpoint -q "$dir/layer" && { umount "$dir/layer" || umount -l "$dir/layer"; }
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

mkdir "$dir/io" "$dir/layer" "$dir/root"
make --no-print-directory build GO="${GO:-go}" BIN="$dir/io/agented"
CGO_ENABLED=0 ${GO:-go} build -trimpath -o "$dir/io/check" ./deploy/test/check
chmod 755 "$dir/io"

mount -t tmpfs -o mode=755 tmpfs "$dir/layer" || cannot "Mounting is not allowed."
mkdir "$dir/layer/upper" "$dir/layer/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/layer/upper,workdir=$dir/layer/work" "$dir/root" ||
	cannot "The kernel has no overlay file system."
mounted=1

# A clean system: no service of this machine but what the check asks for.
cat >"$dir/layer/upper.service" <<UNIT
[Unit]
Description=Check of the Agented service
After=basic.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c '/io/check $* >/io/report 2>&1; echo \$? >/io/code; exit 0'
ExecStopPost=/bin/systemctl --no-block poweroff
StandardOutput=null
TimeoutStartSec=300
UNIT
mkdir -p "$dir/root/etc/systemd/system"
cp "$dir/layer/upper.service" "$dir/root/etc/systemd/system/agented-check.service"
rm -rf "$dir/root/var/lib/agented" "$dir/root/etc/agented" "$dir/root/etc/systemd/system/agented.service" \
	"$dir/root/etc/systemd/system/agented.service.d" "$dir/root/etc/systemd/system/agented.socket"

# The real agent CLIs, where `make test-cli` has put them.
clis=$(./scripts/install-clis.sh --print)
[ -d "$clis" ] && set -- "--bind-ro=$clis:/opt/agented-clis"
[ -d "$clis" ] || set --

began=$(date +%s)
SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 timeout -k 10 "${AGENTED_TEST_SERVICE_SECONDS:-360}" systemd-nspawn -q -D "$dir/root" --register=no --keep-unit \
	--private-network --machine="$name" --uuid="$(tr -d - </proc/sys/kernel/random/uuid)" --bind="$dir/io:/io" "$@" \
	--capability=all --console=pipe -b systemd.unified_cgroup_hierarchy=1 systemd.show_status=false \
	systemd.unit=agented-check.service </dev/null >"$dir/console" 2>&1 || true
if [ -e "$dir/io/report" ] && [ ! -e "$dir/io/code" ]; then
	echo "FAIL it did not come to its end within the time; this is how far it got:"
fi
if [ ! -e "$dir/io/report" ]; then
	cat "$dir/console" >&2
	cannot "The container did not boot; the lines above say why."
fi
cat "$dir/io/report"
code=$(cat "$dir/io/code" 2>/dev/null || echo 1)

# Whatever ran when the machine was switched off has a record of its end.
left=$(sed -n 's/^ *left running: //p' "$dir/io/report")
if [ -n "$left" ]; then
	record=$(cat "$dir/root/var/lib/agented/data/executions/$left"/attempt-*/exit.json 2>/dev/null || true)
	if [ -n "$record" ]; then
		echo "ok   switched off: the agent that ran has a record: $record"
	else
		echo "FAIL switched off: the agent that ran has no record of its end"
		code=1
	fi
fi
echo "     $(grep -c '^ok' "$dir/io/report") checks passed in $(($(date +%s) - began)) s"
exit "$code"
