package testrun

import (
	"flag"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"testing"
)

var seed = flag.Uint64("seed", 0, "seed of the random decisions of the tests; 0 chooses one, a test that fails prints it")

var seedOnce = sync.OnceValue(func() uint64 {
	if *seed != 0 {
		return *seed
	}
	return rand.Uint64()>>1 | 1
})

// Rand returns a source of random numbers for the test. It depends on the -seed
// flag and on the test's name only; a test that fails logs the flag that repeats
// its decisions. The source must not be shared between goroutines: give each its
// own with Fork.
func Rand(t testing.TB) *rand.Rand {
	t.Helper()
	name := fnv.New64a()
	name.Write([]byte(t.Name()))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat the random decisions with -seed %d", seedOnce())
		}
	})
	return rand.New(rand.NewPCG(seedOnce(), name.Sum64()))
}

// Fork returns a source for another goroutine, derived from r.
func Fork(r *rand.Rand) *rand.Rand { return rand.New(rand.NewPCG(r.Uint64(), r.Uint64())) }
