#!/bin/sh
# End the server that uses ./data, and its parent if it has one. Running
# executions go on; nobody else's process is touched.
set -eu
cd "$(dirname "$0")/.."
export AGENTED_DATA_DIR="${AGENTED_DATA_DIR:-$PWD/data}"
bin="${BIN:-bin/agented}"
[ -d "$AGENTED_DATA_DIR" ] || { echo "no server has used $AGENTED_DATA_DIR"; exit 0; }
[ -x "$bin" ] || { echo "there is no $bin: make build" >&2; exit 1; }
exec "$bin" stop
