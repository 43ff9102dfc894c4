package backup

import (
	"encoding/binary"
	"os"
	"testing"

	"github.com/agented/agented/internal/testrun"
)

func TestMain(m *testing.M) {
	testrun.Contain()
	testrun.RunMoreInParallel()
	realCost, sealCost = sealCost, cost{memory: 64, passes: 1, threads: 1}
	os.Exit(m.Run())
}

// realCost is the cost outside tests.
var realCost cost

// The other tests seal at a low cost. This one proves the real one, and that a key that was sealed at
// another cost can be opened.
func TestSeal_cost(t *testing.T) {
	was := sealCost
	sealCost = realCost
	sealed, err := seal("the key", []byte("correct horse battery"), "bound")
	sealCost = was
	if err != nil {
		t.Fatal(err)
	}
	if memory, passes := binary.BigEndian.Uint32(sealed[1:]), binary.BigEndian.Uint32(sealed[5:]); memory != 128<<10 || passes != 4 || sealed[9] != 1 {
		t.Errorf("sealed with %d KiB, %d passes, %d threads", memory, passes, sealed[9])
	}
	if key, err := open(sealed, []byte("correct horse battery"), "bound"); err != nil || key != "the key" {
		t.Errorf("opened: %q, %v", key, err)
	}
}
