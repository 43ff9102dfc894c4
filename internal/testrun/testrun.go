// Package testrun controls how a test binary runs: which of its tests, at what
// size, from which random seed, inside a process that ends every process that
// the tests leave. Only tests import it.
package testrun

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"testing"
)

// longEnv is set by `make test-long`.
const longEnv = "AGENTED_TEST_LONG"

// Long reports whether this is a run of `make test-long`.
func Long() bool { return os.Getenv(longEnv) != "" }

// OnlyLong skips the test unless this is a run of `make test-long`. It is for a
// test that takes more than about three seconds of CPU time and has no smaller
// size that proves anything; for a test that has one, use Size.
func OnlyLong(t testing.TB) {
	t.Helper()
	if !Long() {
		t.Skip("a long test: it runs with make test-long (" + longEnv + "=1)")
	}
}

// Size returns the size of a test: short for `go test -short`, normal for
// `make test`, long for `make test-long`.
func Size[T any](short, normal, long T) T {
	switch {
	case Long():
		return long
	case testing.Short():
		return short
	}
	return normal
}

// RunMoreInParallel makes four tests per CPU the default of the -parallel flag. TestMain of a
// package calls it if its parallel tests wait more than they compute, for processes and for due
// times. A -parallel flag on the command line has precedence.
func RunMoreInParallel() {
	if err := flag.Set("test.parallel", strconv.Itoa(4*runtime.GOMAXPROCS(0))); err != nil {
		panic(err) // not a test binary
	}
}
