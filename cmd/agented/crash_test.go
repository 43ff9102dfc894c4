package main_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/agented/agented/internal/testrun"
)

// TestCrashLosesNothing kills the server at random while twenty executions print and ten clients
// follow. AGENTED_CRASH_ROUNDS sets the number of kills.
func TestCrashLosesNothing(t *testing.T) {
	t.Parallel()
	rounds, executions := testrun.Size(1, 2, 10), testrun.Size(4, 4, 20)
	if n, err := strconv.Atoi(os.Getenv("AGENTED_CRASH_ROUNDS")); err == nil {
		rounds, executions = n, 20
	}
	random := testrun.Rand(t)
	const rate, readersEach = 200, 5
	lines := max(600, rounds*rate*3/4)

	s := newServer(t, fmt.Sprintf("AGENTED_MAX_CONCURRENT=%d", executions))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	gate := filepath.Join(s.dir, "gate")
	done := filepath.Join(s.dir, "done")
	if err := os.Mkdir(done, 0o700); err != nil {
		t.Fatal(err)
	}
	// All slots are occupied first, so that the clients can connect before the executions start.
	blocker := s.trigger(map[string]any{
		"name": "blocker", "backend": "command", "max_concurrent": 0,
		"command": []string{"sh", "-c", `while [ ! -e "$GATE" ]; do sleep 0.05; done`},
		"env":     map[string]any{"GATE": gate},
	})
	var blockers, ids []string
	for range executions {
		blockers = append(blockers, s.fire(blocker))
	}
	counting := s.trigger(map[string]any{
		"name": "counter", "backend": "command", "max_concurrent": 0, "command": []string{self},
		"env": map[string]any{
			"COUNTER_LINES": strconv.Itoa(lines), "COUNTER_RATE": strconv.Itoa(rate), "COUNTER_DONE": done,
		},
	})
	for range executions {
		ids = append(ids, s.fire(counting))
	}

	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rounds)*5*time.Second+3*time.Minute)
	defer cancel()
	var wg, joined sync.WaitGroup
	readers := make([]*reader, 2*readersEach)
	joined.Add(len(readers))
	for i := range readers {
		wg.Go(func() { readers[i] = s.follow(ctx, ids[i/readersEach], joined.Done) })
	}
	joined.Wait()
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	for i := range rounds {
		time.Sleep(time.Duration(100+random.IntN(900)) * time.Millisecond) // a random time before the crash
		s.kill()
		down := time.Now()
		s.start()
		t.Logf("round %d: ready again after %v", i+1, time.Since(down).Round(time.Millisecond))
	}
	t.Logf("%d kills in %v, %d lines of each of %d executions", rounds, time.Since(began).Round(time.Second), lines, executions)

	for _, id := range append(ids, blockers...) {
		e := s.await(id)
		if e.Status != "success" || e.ExitCode == nil || *e.ExitCode != 0 {
			t.Errorf("%s ended %s (exit %v): %s", id, e.Status, e.ExitCode, e.ErrorMessage)
		}
		if len(e.Attempts) != 1 {
			t.Errorf("%s took %d attempts", id, len(e.Attempts))
		}
	}
	wg.Wait()
	for i, r := range readers {
		if r.complete != "success" || len(r.problems) > 0 {
			t.Errorf("reader %d: complete %q, problems %q", i, r.complete, r.problems)
		}
		for j, seq := range r.seqs {
			if seq != int64(j+1) {
				t.Errorf("reader %d: position %d has seq %d", i, j+1, seq)
				break
			}
		}
		checkLines(t, fmt.Sprintf("reader %d", i), r.contents, lines)
	}
	for _, id := range ids {
		var contents []string
		for _, l := range s.lines(id) {
			if l.Stream == "stdout" {
				contents = append(contents, l.Content)
			}
		}
		checkLines(t, id, contents, lines)
	}
	ended, err := os.ReadDir(done)
	if err != nil || len(ended) != executions {
		t.Errorf("%d of %d processes came to their end (%v)", len(ended), executions, err)
	}
	if left := marked(append(ids, blockers...)); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
	s.waitFor("the shims to end", func() bool { return len(shims(s.data())) == 0 })
}

// checkLines expects "line 1" to "line n", each once and in order.
func checkLines(t *testing.T, who string, got []string, n int) {
	t.Helper()
	if len(got) != n {
		t.Errorf("%s: %d lines, want %d", who, len(got), n)
	}
	for i, content := range got {
		if content != fmt.Sprintf("line %d", i+1) {
			t.Errorf("%s: line %d is %q", who, i+1, content)
			return
		}
	}
}
