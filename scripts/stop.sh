#!/bin/sh
# End the server that holds ./data, by the process id in its lock file. Running
# executions go on; nobody else's process is touched.
set -eu
cd "$(dirname "$0")/.."
lock="${AGENTED_DATA_DIR:-$PWD/data}/server.lock"
[ -f "$lock" ] || { echo "no server has used ${lock%/*}"; exit 0; }
pid=$(head -n 1 "$lock" | tr -cd 0-9)
[ -n "$pid" ] || { echo "$lock names no process"; exit 0; }
# The file outlives the server: only whoever holds it locked is one.
if flock -n "$lock" true; then echo "no server is running on ${lock%/*}"; exit 0; fi
kill -TERM "$pid"
n=0
while ! flock -n "$lock" true; do
	n=$((n + 1))
	[ "$n" -gt 400 ] && { echo "process $pid has not ended after 40 s" >&2; exit 1; }
	sleep 0.1
done
echo "ended process $pid"
