package store

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/testrun"
	"github.com/agented/agented/internal/testrun/pgtest"
	"go.uber.org/goleak"
)

// crashEnv makes the test binary a process that writes to the given database
// and prints what was acknowledged, until it is killed.
const crashEnv = "AGENTED_TEST_CRASH_DB"

func TestMain(m *testing.M) {
	if path := os.Getenv(crashEnv); path != "" {
		crashWriter(path)
		return
	}
	if path := os.Getenv(tickCrashEnv); path != "" {
		tickUntilKilled(path)
		return
	}
	if path := os.Getenv(planCrashEnv); path != "" {
		planUntilKilled(path)
		return
	}
	testrun.Contain()
	testrun.RunMoreInParallel()
	testrun.Checks(20, 200)
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(pgtest.Thread), goleak.Cleanup(func(code int) {
		pgtest.End()
		os.Exit(code)
	}))
}

func crashWriter(path string) {
	ctx := context.Background()
	db, err := Open(ctx, path, Options{})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	say := func(id agented.ExecutionID, s agented.State, err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Stdout.WriteString(fmt.Sprintf("%s %s\n", s, id)) // one write: whole or not at all
	}
	for range 4 {
		go func() {
			for {
				now := time.Now()
				e := newExecution("", now)
				_, err := db.Admit(ctx, Admission{Execution: e, IdempotencyKey: string(e.ID)}, now)
				say(e.ID, agented.StatePending, err)
				// Far in the future: executions that others have admitted
				// meanwhile are due too.
				c, err := db.Claim(ctx, "node-a", 1_000_000, now.Add(time.Hour), ttl)
				if err != nil || c == nil {
					say("", "", fmt.Errorf("claim: %v, %w", c, err))
				}
				say(c.ID, agented.StateRunning, nil)
				if time.Now().UnixNano()%3 != 0 { // some stay running
					say(c.ID, agented.StateSuccess, endAttempt(db, ctx, ended(c, agented.StateSuccess, now), c.Lease, now))
				}
			}
		}()
	}
	select {}
}

func TestAdmit_survives_kill(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agented.db")
	said := map[agented.ExecutionID]agented.State{}
	rank := map[agented.State]int{agented.StatePending: 1, agented.StateRunning: 2, agented.StateSuccess: 3}
	rounds := testrun.Size(1, 3, 12)
	for round := range rounds {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), crashEnv+"="+locate(t, path))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			word, id, ok := strings.Cut(lines.Text(), " ")
			if word == "error" {
				t.Fatal(lines.Text())
			}
			if n == 150+37*round {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			if s := agented.State(word); ok && rank[s] > rank[said[agented.ExecutionID(id)]] {
				said[agented.ExecutionID(id)] = s
			}
		}
		cmd.Wait() // killed as expected

		db := openAt(t, path)
		for id, s := range said {
			e, err := db.Execution(t.Context(), id)
			if err != nil {
				t.Fatalf("round %d: %s was acknowledged as %s: %v", round, id, s, err)
			}
			if rank[e.State] < rank[s] {
				t.Errorf("round %d: %s was acknowledged as %s and is %s", round, id, s, e.State)
			}
			got := must(db.Admit(t.Context(), Admission{Execution: newExecution("", start), IdempotencyKey: string(id)}, start))(t)
			if !got.Repeated || got.Execution.ID != id {
				t.Errorf("round %d: the key of %s is gone", round, id)
			}
		}
		if check := "ok"; !pgtest.Selected() {
			if err := db.row(context.Background(), `PRAGMA integrity_check`).Scan(&check); err != nil || check != "ok" {
				t.Fatalf("integrity check: %s, %v", check, err)
			}
		}
		// Every transaction is complete, and every execution is in the queue.
		for _, q := range []string{
			`SELECT COUNT(*) FROM execution e WHERE status = 'running' AND NOT EXISTS
				(SELECT 1 FROM attempt a WHERE a.execution_id = e.id AND a.number = e.attempt_no AND a.status = 'running')`,
			`SELECT COUNT(*) FROM execution e WHERE NOT EXISTS (SELECT 1 FROM execution_text x WHERE x.execution_id = e.id)`,
			`SELECT (SELECT value FROM counter WHERE name = 'success') - (SELECT COUNT(*) FROM execution WHERE status = 'success')`,
			`SELECT (SELECT value FROM counter WHERE name = 'event') - (SELECT MAX(event_seq) FROM execution)`,
		} {
			var n int
			if err := db.row(context.Background(), q).Scan(&n); err != nil || n != 0 {
				t.Errorf("round %d: %d rows of %s, error %v", round, n, q, err)
			}
		}
		taken := must(db.TakeOver(t.Context(), "node-a", time.Now(), ttl))(t)
		for _, e := range taken {
			if err := endAttempt(db, t.Context(), ended(e, agented.StateInterrupted, time.Now()), e.Lease, time.Now()); err != nil {
				t.Error(err)
			}
			rank[agented.StateInterrupted] = 4
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(said) < 50*rounds {
		t.Errorf("only %d executions were written", len(said))
	}
}
