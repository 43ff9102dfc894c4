package shim

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/runlog"
)

// A power failure at the start of an attempt may leave any part of its bundle: every combination
// is decided.
func TestDecide_after_power_failure(t *testing.T) {
	t.Parallel()
	for name, spec := range map[string][]byte{"no spec": nil, "an empty spec": {}, "half a spec": []byte(`{"v":1,"execu`)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRun(t, agented.CaptureFile, "echo ran")
			if err := layOut(r.bundle, &r.spec, nil); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(r.bundle, specFile)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if spec != nil {
				if err := os.WriteFile(path, spec, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if v := r.state(); v != NeverStarted {
				t.Errorf("without the mark: %s", v)
			}
			if err := os.WriteFile(filepath.Join(r.bundle, begunFile), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if v := r.state(); v != Lost {
				t.Errorf("with the mark: %s", v)
			}
			for range 2 {
				if exit := r.settle(); exit.Cause != agented.CauseLost || !strings.Contains(exit.Detail, "restarted") || exit.FinishedAt.IsZero() {
					t.Errorf("exit = %+v", exit)
				}
			}
			if v := r.state(); v != Ended {
				t.Errorf("settled: %s", v)
			}
		})
	}
}

// A missing spec must not prevent the attempt from being terminated, named and read.
func TestSettle_without_spec(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CaptureFile, `sleep 600 & echo ready; wait`)
	r.dir = filepath.Join(r.dir, string(r.spec.Execution)) // as a server names it
	r.bundle = filepath.Join(r.dir, "attempt-1")
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.eventually("the start", func() bool { return len(r.contents(agented.Stdout)) == 1 && len(r.orphans()) == 2 })
	r.killShim()
	if err := os.WriteFile(filepath.Join(r.bundle, specFile), []byte("?"), 0o600); err != nil {
		t.Fatal(err)
	}
	if exit := r.settle(); exit.Cause != agented.CauseLost || exit.LastSeq == 0 {
		t.Errorf("exit = %+v", exit)
	}
	r.eventually("all to be gone", func() bool { return len(r.orphans()) == 0 })
	wantLines(t, r, agented.Stdout, "ready")
}

// Not parallel: it observes the syncs of this process.
func TestBundle_synced_before_start(t *testing.T) {
	r := newRun(t, agented.CaptureFile, "echo ran")
	if err := layOut(r.bundle, &r.spec, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.bundle, "..", runlog.FileName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	defer func() {
		syncFile = (*os.File).Sync
		os.Remove(filepath.Join(r.bundle, begunFile)) // it names this process as the shim
	}()
	var seen []string
	refuse := error(nil)
	syncFile = func(f *os.File) error {
		if _, err := os.Stat(filepath.Join(r.bundle, begunFile)); err != nil {
			t.Errorf("%s is put on disk before the mark is left: %v", f.Name(), err)
		}
		name, err := filepath.Rel(r.bundle, f.Name())
		if err != nil {
			t.Error(err)
		}
		seen = append(seen, name)
		return refuse
	}
	if err := begin(r.bundle); err != nil {
		t.Fatal(err)
	}
	if want := []string{specFile, begunFile, "../" + runlog.FileName, ".", "..", "../.."}; !slices.Equal(seen, want) {
		t.Errorf("on disk are %q, want %q", seen, want)
	}
	refuse = unix.ENOSPC
	if err := begin(r.bundle); !full(err) {
		t.Errorf("a disk without room: %v", err)
	}
	if v := r.state(); v != NeverStarted {
		t.Errorf("what could not be put on disk is %s", v)
	}
}
