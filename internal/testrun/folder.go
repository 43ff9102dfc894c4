package testrun

import (
	"os"
	"testing"
	"time"
)

// removePatience is how long the removal of a DataFolder is repeated.
const removePatience = 10 * time.Second

// DataFolder returns a temporary folder for the data of a server. Unlike the
// folder of t.TempDir, it may still be written to when the test ends: a shim
// outlives its server for a moment, so the removal is repeated.
func DataFolder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "data-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for deadline := time.Now().Add(removePatience); ; time.Sleep(10 * time.Millisecond) { // interval of the poll
			err := os.RemoveAll(dir)
			if err == nil {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("remove the data folder: %v", err)
				return
			}
		}
	})
	return dir
}
