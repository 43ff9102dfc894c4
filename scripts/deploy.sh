#!/bin/sh
# Serve on ./data at 127.0.0.1:20000 in the background, supervised: the parent
# keeps the socket and starts the server again when it dies. Run again, it
# replaces its own server; running executions go on, and nobody else's process is
# touched. `make kill` stops it.
set -eu
cd "$(dirname "$0")/.."
export AGENTED_DATA_DIR="${AGENTED_DATA_DIR:-$PWD/data}" AGENTED_BIND="${AGENTED_BIND:-127.0.0.1:20000}"
exec "${BIN:-bin/agented}" serve --supervise --detach --replace --sample
