package sqlite

import (
	"database/sql"
	"os"
	"testing"

	"github.com/agented/agented/internal/database"
	"golang.org/x/sys/unix"
)

// Not parallel: no file can be opened meanwhile.
func TestDescriptors(t *testing.T) {
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &was) }()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("NOT CHECKED: no /proc")
	}
	raw, err := sql.Open("sqlite", t.TempDir()+"/test.db")
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	low := was
	low.Cur = uint64(len(entries) + 20)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	var held []*os.File
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			break
		}
		held = append(held, f)
	}
	_, err = raw.ExecContext(t.Context(), "CREATE TABLE t (x)")
	out, fault := outOfDescriptors(), FaultOf(err)
	for _, f := range held {
		f.Close()
	}
	if err == nil || !out {
		t.Fatalf("without descriptors: %v, out of them: %v", err, out)
	}
	if fault != database.NoDescriptors {
		t.Errorf("error %v has the fault %v", err, fault)
	}
	if outOfDescriptors() {
		t.Error("still out of descriptors after they were closed")
	}
}
