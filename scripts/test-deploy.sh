#!/bin/sh
# Checks `make deploy` and `make kill` with what `make build` has made: twice in a
# row with the port taken by the first, with an agent that runs, and beside a
# stranger's process. Everything is in a folder that is removed afterwards.
set -eu
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
export BIN="$PWD/bin/agented" AGENTED_DATA_DIR="$dir/data" HOME="$dir" XDG_RUNTIME_DIR="$dir" AGENTED_ACCESS_LOG=off
unset AGENTED_URL AGENTED_API_KEY GUNICORN_BIND || true
stranger=
cleanup() {
	touch "$dir/enough"
	scripts/stop.sh >/dev/null 2>&1 || true
	[ -z "$stranger" ] || kill "$stranger" 2>/dev/null || true
	rm -rf "$dir"
}
trap cleanup EXIT
fail() {
	echo "FAIL $*" >&2
	[ ! -f "$dir/data/server.log" ] || tail -n 30 "$dir/data/server.log" >&2
	exit 1
}
field() { sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" "$dir/data/supervisor.json"; }

# A port that is free now; somebody else may take it, so more than one is tried.
port=$((20000 + $$ % 9000 + 1000))
for try in 1 2 3 4 5 6 7 8 9; do
	export AGENTED_BIND="127.0.0.1:$port"
	if out=$(scripts/deploy.sh 2>&1); then break; fi
	case "$out" in *"another program already listens"*) port=$((port + 7)) ;; *) fail "first deploy: $out" ;; esac
done
echo "$out"
[ -n "$(field server)" ] || fail "no server after the first deploy: $out"
"$BIN" run --detach -- sh -c "echo \$\$ > $dir/pid; while [ ! -e $dir/enough ]; do sleep 0.1; done" >/dev/null
n=0
while [ ! -s "$dir/pid" ]; do n=$((n + 1)); [ $n -lt 300 ] || fail "the agent did not start"; sleep 0.1; done
agent=$(cat "$dir/pid")
one=$(field server)

out=$(scripts/deploy.sh 2>&1) || fail "second deploy: $out"
echo "$out"
two=$(field server)
[ "$one" != "$two" ] || fail "the second deploy left process $one"
! kill -0 "$one" 2>/dev/null || fail "process $one is still there"
kill -0 "$agent" || fail "the agent is gone"
"$BIN" execution list | grep -q running || fail "the agent is not known to the new server"
echo "ok   deployed twice: process $two for $one, the agent as before"

# A stranger on the port is an error, and neither it nor the server is touched.
other=$((port + 1))
while :; do
	AGENTED_DATA_DIR="$dir/other" AGENTED_BIND="127.0.0.1:$other" "$BIN" serve >"$dir/other.log" 2>&1 &
	stranger=$!
	n=0
	until grep -q '"msg":"ready"' "$dir/other.log" || ! kill -0 $stranger 2>/dev/null; do n=$((n + 1)); [ $n -lt 300 ] || break; sleep 0.1; done
	kill -0 $stranger 2>/dev/null && break
	other=$((other + 7))
	[ $other -lt 31000 ] || fail "no free port: $(cat "$dir/other.log")"
done
if out=$(AGENTED_BIND="127.0.0.1:$other" scripts/deploy.sh 2>&1); then fail "deployed over a stranger: $out"; fi
case "$out" in *"another program already listens on 127.0.0.1:$other"*) ;; *) fail "$out" ;; esac
kill -0 $stranger || fail "the stranger was ended"
[ "$(field server)" = "$two" ] && kill -0 "$two" || fail "the own server was ended"
echo "ok   a stranger on the port: $out"

out=$(scripts/stop.sh 2>&1) || fail "stop: $out"
! kill -0 "$two" 2>/dev/null || fail "the server is still there"
kill -0 "$agent" || fail "stop ended the agent"
kill -0 $stranger || fail "stop ended the stranger"
out=$(scripts/stop.sh 2>&1) || fail "stop: $out"
echo "ok   stopped: the agent as before; $out"

out=$(scripts/deploy.sh 2>&1) || fail "third deploy: $out"
touch "$dir/enough"
n=0
until "$BIN" execution list | grep -q success; do n=$((n + 1)); [ $n -lt 300 ] || fail "the agent did not come to its end"; sleep 0.1; done
echo "ok   deployed again: the agent was taken over and has ended with success"
