package dispatch

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/shim"
	"github.com/agented/agented/internal/testrun"
)

// lockedText is a log that is read while it is written.
type lockedText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedText) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), text)
}

// An attempt is not abandoned while its bundle is temporarily unreadable.
func TestWaitFor(t *testing.T) {
	t.Run("goes_on_while_the_shim_lives", func(t *testing.T) {
		t.Parallel()
		log := new(lockedText)
		d := New(Options{Layout: agented.Layout{Root: t.TempDir()}, Log: slog.New(slog.NewTextHandler(log, nil))})
		e := &agented.Execution{ID: agented.ExecutionID(agented.NewID("exec", time.Now())), AttemptNo: 1}
		bundle := d.o.Layout.Attempt(e.ID, 1)
		if err := os.MkdirAll(d.o.Layout.Execution(e.ID), 0o700); err != nil {
			t.Fatal(err)
		}
		gate := filepath.Join(d.o.Layout.Root, "gate")
		h, err := shim.Start(bundle, shim.Spec{
			Execution: e.ID, Attempt: 1, FirstSeq: 1, Path: "/bin/sh", Args: []string{"sh", "-c", "while [ ! -e " + gate + " ]; do sleep 0.02; done; exit 6"},
			Dir: d.o.Layout.Root, Capture: agented.CaptureFile, CreatedAt: time.Now(),
		}, shim.Private{Env: []string{"PATH=/usr/bin:/bin"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		open := func() {
			if err := os.WriteFile(gate, nil, 0o600); err != nil {
				t.Error(err)
			}
		}
		defer open()
		// Neither the socket nor the lock can be opened.
		for _, name := range []string{"ctl.sock", "lock"} {
			path := filepath.Join(bundle, name)
			if err := os.Rename(path, path+".away"); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(name, path); err != nil {
				t.Fatal(err)
			}
		}
		type end struct {
			exit agented.Exit
			err  error
		}
		ended := make(chan end, 1)
		go func() {
			exit, err := d.waitFor(t.Context(), e, h)
			ended <- end{exit, err}
		}()
		for deadline := time.Now().Add(time.Minute); !log.has("wait for the end of the attempt"); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the wait did not fail")
			}
		}
		for _, name := range []string{"ctl.sock", "lock"} {
			path := filepath.Join(bundle, name)
			if err := os.Rename(path+".away", path); err != nil {
				t.Fatal(err)
			}
		}
		open()
		got := testrun.Receive(t, ended, "the wait to end")
		if got.err != nil || got.exit.Code == nil || *got.exit.Code != 6 {
			t.Errorf("exit %+v, %v", got.exit, got.err)
		}
	})
}
