package hub

import (
	"testing"
	"time"
)

func TestACrowdGetsLinesByTheHandfulAndAFewReadersAtOnce(t *testing.T) {
	t.Parallel()
	for readers, want := range map[int]time.Duration{
		0: pace, 1: pace, 200: pace, 1000: 20 * time.Millisecond, 10_000: 200 * time.Millisecond, 1_000_000: maxPace,
	} {
		if got := paceFor(readers); got != want {
			t.Errorf("paceFor(%d) = %s, want %s", readers, got, want)
		}
	}
}
