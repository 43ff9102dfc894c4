#!/bin/sh
# Checks the packages of a release on a fresh Debian: debootstrap creates a system,
# systemd-nspawn boots it, and deploy/test/package-check installs, uses, upgrades and
# removes the .deb, then does the same with the tar archive. Needs root and Debian.
# Uses the files in dist/; without them it runs make release-snapshot first.
#
# Exit codes: 0 passed, 1 failed, 77 cannot run on this machine.
set -eu
cd "$(dirname "$0")/.."

cannot() {
	echo "NOT CHECKED: the packages. $1" >&2
	exit 77
}
[ "$(uname -s)" = Linux ] || cannot "This is not Linux."
[ "$(id -u)" -eq 0 ] || cannot "It needs root."
command -v apt-get >/dev/null || cannot "It needs Debian."
./scripts/install-packages.sh debootstrap=debootstrap systemd-nspawn=systemd-container
command -v debootstrap >/dev/null || cannot "debootstrap is not installed."
command -v systemd-nspawn >/dev/null || cannot "systemd-nspawn is not installed."

arch=$(dpkg --print-architecture)
deb=$(ls dist/*_"$arch".deb 2>/dev/null | head -n 1)
if [ -z "$deb" ]; then
	make --no-print-directory release-snapshot GO="${GO:-go}" || exit 1
	deb=$(ls dist/*_"$arch".deb | head -n 1)
fi
archive=$(ls dist/*_linux_"$arch".tar.gz | head -n 1)

# The base system is kept for the next run.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/agented
base=$cache/debian-bookworm-$arch.tar
if [ ! -s "$base" ]; then
	mkdir -p "$cache"
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -n 1)
	new=$(mktemp -d)
	debootstrap --variant=minbase \
		--include=systemd,systemd-sysv,passwd,procps,ca-certificates,git,curl,jq,openssl,man-db \
		bookworm "$new" ${mirror:+"$mirror"} >"$cache/debootstrap.log" 2>&1 || {
		tail -n 5 "$cache/debootstrap.log" >&2
		rm -rf "$new"
		cannot "debootstrap failed."
	}
	rm -rf "$new"/var/cache/apt/archives/*.deb
	tar -C "$new" -cf "$base.part" . && mv "$base.part" "$base"
	rm -rf "$new"
fi

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
mkdir "$dir/root" "$dir/io"
tar -C "$dir/root" -xf "$base"
cp "$deb" "$dir/io/agented.deb"
cp "$archive" "$dir/io/agented.tar.gz"
cp deploy/test/package-check "$dir/io/check"
cp README.md "$dir/io/"
chmod 755 "$dir" "$dir/io" "$dir/root"
cat >"$dir/root/etc/systemd/system/agented-check.service" <<'UNIT'
[Unit]
Description=Check of the Agented packages
After=basic.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c '/io/check >/io/report 2>&1; echo $? >/io/code; exit 0'
ExecStopPost=/bin/systemctl --no-block poweroff
StandardOutput=null
TimeoutStartSec=300
UNIT
SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 timeout -k 10 360 systemd-nspawn -q -D "$dir/root" --register=no --keep-unit \
	--private-network --machine="agented-package-$$" --uuid="$(tr -d - </proc/sys/kernel/random/uuid)" \
	--bind="$dir/io:/io" --capability=all --console=pipe -b systemd.unified_cgroup_hierarchy=1 \
	systemd.show_status=false systemd.unit=agented-check.service </dev/null >"$dir/console" 2>&1 || true
[ -e "$dir/io/report" ] || {
	cat "$dir/console" >&2
	cannot "The container did not boot; the lines above show why."
}
cat "$dir/io/report"
code=$(cat "$dir/io/code" 2>/dev/null || echo 1)
echo "$(grep -c '^ok' "$dir/io/report") checks passed, $(grep -c '^FAIL' "$dir/io/report") failed"
exit "$code"
