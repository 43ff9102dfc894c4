#!/bin/sh
# Serve on ./data; rebuild and restart whenever a Go file changes. A build that
# fails leaves the running server alone. Running executions outlive each
# restart, as they do everywhere.
set -u
cd "$(dirname "$0")/.."
export AGENTED_DATA_DIR="${AGENTED_DATA_DIR:-$PWD/data}" AGENTED_BIND="${AGENTED_BIND:-127.0.0.1:20000}"
server=
stop() {
	[ -n "$server" ] && kill "$server" 2>/dev/null && wait "$server"
	server=
}
trap 'stop; exit 0' INT TERM
stamp() { find . -name '*.go' -o -name '*.sql' -o -name go.mod -o -name .env | grep -v node_modules | xargs ls -ln --time-style=full-iso 2>/dev/null | cksum; }
last=
while :; do
	now=$(stamp)
	if [ "$now" != "$last" ]; then
		last=$now
		if make -s build; then
			stop
			./bin/agented serve --sample &
			server=$!
		else
			echo "the build failed; the running server stays" >&2
		fi
	fi
	sleep 1 &
	wait $!
done
