#!/bin/sh
# What `make test` leaves out: full sizes, the race detector, fuzzing, the whole
# browser suite, benchmarks, a deployment, a real systemd, the real agent CLIs.
# A part that cannot run on this machine says so. Every part runs, also after
# one has failed; the summary at the end names those that failed.
#
#   test-long.sh             everything
#   test-long.sh race fuzz   only these parts
set -u
cd "$(dirname "$0")/.."
GO=${GO:-go}
export GOFLAGS="${GOFLAGS:--trimpath}" CGO_ENABLED="${CGO_ENABLED:-0}"
all="sizes race fuzz bench browser deploy service cli clients package"
parts=${*:-$all}
summary= failed=

part() { # part NAME COMMAND...: run it if it is wanted
	name=$1
	shift
	case " $parts " in *" $name "*) ;; *) return ;; esac
	began=$(date +%s)
	echo "== $(date +%T) $name: $*"
	"$@"
	code=$?
	took=$(($(date +%s) - began))
	case $code in
	0) word=ok ;;
	77) word="NOT CHECKED here" ;;
	*) word=FAIL failed=1 ;;
	esac
	summary="$summary
$word	$name	$took s"
}

fetch() {
	./scripts/install-promtool.sh
	./scripts/install-node-tests.sh
	./scripts/install-webhook-examples.sh
	./scripts/install-packages.sh gcc=gcc nginx=nginx-light bwrap=bubblewrap
	AGENTED_TEST_PROMTOOL=$(./scripts/install-promtool.sh --print)
	AGENTED_TEST_NODE=$(./scripts/install-node-tests.sh --print)
	AGENTED_TEST_WEBHOOKS=$(./scripts/install-webhook-examples.sh --print)
	export AGENTED_TEST_PROMTOOL AGENTED_TEST_NODE AGENTED_TEST_WEBHOOKS
}
# The tests of cmd/agented start the program, which is built without the detector. The
# arithmetic of SQLite's pointers is not checked: that takes most of the time. Without any instrumentation,
# generic code shared with other packages loses its atomics, which gives false reports.
race() {
	CGO_ENABLED=0 "$GO" build -o bin/gotestsum gotest.tools/gotestsum
	CGO_ENABLED=1 bin/gotestsum --format standard-quiet --rerun-fails="${RERUN:-0}" --rerun-fails-report=bin/flaky-race.txt \
		--packages '. ./internal/...' -- -race -gcflags='modernc.org/...=-d=checkptr=0' -count=1 -vet=off -ldflags '-s -w' -timeout 40m
}
bench() {
	"$GO" test -run '^$' -bench . -benchtime 1x ./internal/... >bin/bench-go.txt || { cat bin/bench-go.txt; return 1; }
	grep -c '^Benchmark' bin/bench-go.txt
	make --no-print-directory bench-quick
}
browser() { AGENTED_BIN=$PWD/bin/agented ./scripts/test-ui.sh --if-possible; }
package() { make --no-print-directory release-snapshot && ./scripts/test-package.sh; }
service() { AGENTED_TEST_SERVICE_SECONDS=${AGENTED_TEST_SERVICE_SECONDS:-230} ./deploy/test/run.sh; }

fetch
./scripts/build-ui.sh --if-possible && make --no-print-directory build || exit 1
part sizes env AGENTED_TEST_LONG=1 "$GO" test -count=1 -vet=off -ldflags '-s -w' -p 3 -timeout 40m ./...
part race race
part fuzz ./scripts/fuzz.sh "${AGENTED_TEST_FUZZ_TIME:-3s}"
part bench bench
part browser browser
part deploy make --no-print-directory test-deploy
part service service
part cli make --no-print-directory test-cli
part clients ./scripts/test-clients.sh
part package package
echo "== $(date +%T) summary$summary"
[ -z "$failed" ]
