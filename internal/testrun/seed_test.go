package testrun_test

import (
	"testing"

	"github.com/agented/agented/internal/testrun"
)

func TestRand(t *testing.T) {
	a, b := testrun.Rand(t), testrun.Rand(t)
	if x, y := a.Uint64(), b.Uint64(); x != y {
		t.Errorf("one seed and one test gave %d and %d", x, y)
	}
	if x, y := testrun.Fork(a).Uint64(), testrun.Fork(a).Uint64(); x == y {
		t.Errorf("two forks of one source begin with %d", x)
	}
}
