#!/bin/sh
# The shortest proof that a build works on this system: a server starts on a
# folder of its own, an agent runs, the server is killed, the next one takes the
# agent over, and the log is whole.
#
#   smoke.sh PROGRAM [PORT]
set -eu
program=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
port=${2:-20871}
dir=$(mktemp -d)
server=
cleanup() {
	touch "$dir/enough"
	if [ -n "$server" ]; then
		kill "$server" 2>/dev/null || true
		wait "$server" 2>/dev/null || true
	fi
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

export HOME="$dir/home" XDG_RUNTIME_DIR="$dir/run" AGENTED_DATA_DIR="$dir/data" AGENTED_BIND="127.0.0.1:$port"
mkdir -p "$HOME" "$XDG_RUNTIME_DIR"
chmod 700 "$XDG_RUNTIME_DIR"
cd "$dir"

serve() {
	"$program" serve >"$dir/access.log" 2>>"$dir/server.log" &
	server=$!
	n=0
	until curl -fsS "http://127.0.0.1:$port/health/readiness" >/dev/null 2>&1; do
		n=$((n + 1))
		if [ "$n" -gt 300 ] || ! kill -0 "$server" 2>/dev/null; then
			echo "smoke: the server does not come up:" >&2
			cat "$dir/server.log" >&2
			exit 1
		fi
		sleep 0.1
	done
}

serve
said=$("$program" run -- echo hello)
case $said in *hello*) ;; *) echo "smoke: a run printed: $said" >&2; exit 1 ;; esac
id=$("$program" run --detach -- sh -c "echo one; while [ ! -e '$dir/enough' ]; do sleep 0.1; done; echo two")
n=0
until "$program" execution logs "$id" 2>/dev/null | grep -q one; do
	n=$((n + 1))
	[ "$n" -le 300 ] || { echo "smoke: the agent prints nothing" >&2; exit 1; }
	sleep 0.1
done
kill -9 "$server"
wait "$server" 2>/dev/null || true
server=
serve
touch "$dir/enough"
"$program" execution logs --follow "$id" >"$dir/log"
grep -q one "$dir/log" && grep -q two "$dir/log" || { echo "smoke: the log is not whole:" >&2; cat "$dir/log" >&2; exit 1; }
echo "smoke: $("$program" --version) serves, survives kill -9 and loses nothing"
