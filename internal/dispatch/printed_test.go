package dispatch

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/costs"
	"github.com/agented/agented/internal/printed"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/shim"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/testrun"
)

// recorded is an attempt that printed what a file of the backends' samples holds.
type recorded struct {
	d    *Dispatcher
	e    *agented.Execution
	exit agented.Exit
}

// record makes the run log of an attempt whose variables have the values.
func record(t *testing.T, db *store.DB, cli string, output map[string][]byte, exit agented.Exit, values []string) *recorded {
	t.Helper()
	layout, log := agented.Layout{Root: t.TempDir()}, slog.New(slog.DiscardHandler)
	d := New(Options{
		DB: db, Layout: layout, Log: log, Costs: costs.New(costs.Options{DB: db, Layout: layout, Prices: agentcli.DefaultPrices(), Log: log}),
		Now: func() time.Time { return time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC) },
	})
	e := &agented.Execution{ID: "exec-1", Backend: cli, AttemptNo: 1, Attempts: []agented.Attempt{{Number: 1, Backend: cli}}, Snapshot: agented.Spec{Backend: cli, Env: map[string]*string{}}}
	for i := range values {
		e.Snapshot.Env[fmt.Sprintf("V%d", i)] = &values[i]
	}
	bundle := d.o.Layout.Attempt(e.ID, 1)
	if err := os.MkdirAll(bundle, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range output {
		if err := os.WriteFile(filepath.Join(bundle, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	secrets, err := d.secretsOf(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := shim.Settle(bundle, shim.Private{Mask: secrets}); err != nil {
		t.Fatal(err)
	}
	return &recorded{d, e, exit}
}

func emptyDB(t *testing.T) *store.DB {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	path := filepath.Join(t.TempDir(), "agented.db")
	open := func(path string) (*store.DB, error) {
		return store.Open(t.Context(), path, store.Options{Log: log})
	}
	testrun.Database(t, path, func(path string) error {
		db, err := open(path)
		if err != nil {
			return err
		}
		return db.Close()
	})
	db, err := open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// end is what would be stored, without what differs from one run to the next.
func (r *recorded) end(t *testing.T) store.AttemptEnd {
	end, _ := r.d.classify(t.Context(), r.e, r.exit)
	end.Price, end.Retry, end.Jitter = nil, nil, 0
	return end
}

func (r *recorded) log(t *testing.T) string {
	t.Helper()
	reader, err := runlog.OpenReader(r.d.o.Layout.Execution(r.e.ID))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var out strings.Builder
	for {
		lines, err := reader.Next(nil, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(lines) == 0 {
			return out.String()
		}
		for _, l := range lines {
			out.Write(l.Content)
			out.WriteByte('\n')
		}
	}
}

// protocolWords are the names, the types and some numbers of the objects in an output,
// each in a form that is long enough to be masked.
func protocolWords(output []byte) []string {
	found := map[string]bool{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, x := range v {
				walk(x)
			}
		case map[string]any:
			for name, x := range v {
				for _, form := range []string{name, `"` + name + `"`, `"` + name + `":`} {
					if len(form) >= redact.MinLen {
						found[form] = true
						break
					}
				}
				word, isText := x.(string)
				if isText && slices.Contains([]string{"type", "subtype", "status", "role", "stop_reason", "reason"}, name) && len(word)+2 >= redact.MinLen {
					found[`"`+word+`"`] = true
				}
				if n, ok := x.(json.Number); ok && len(n) >= redact.MinLen {
					found[n.String()] = true
				}
				walk(x)
			}
		}
	}
	dec := json.NewDecoder(strings.NewReader(string(output)))
	dec.UseNumber()
	for {
		var v any
		if dec.Decode(&v) != nil {
			return slices.Sorted(maps.Keys(found))
		}
		walk(v)
	}
}

// samples calls f for each recorded output of the agent CLIs.
func samples(t *testing.T, f func(t *testing.T, cli string, output map[string][]byte, exit agented.Exit)) {
	files, err := filepath.Glob("../agentcli/*/testdata/samples/*.exit.json")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d samples, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(file, ".exit.json")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var how struct {
			Cause  agented.Cause
			Code   *int
			Signal string
		}
		if err := json.Unmarshal(text, &how); err != nil {
			t.Fatal(err)
		}
		output := map[string][]byte{}
		for stream, ext := range map[string]string{"stdout": ".out", "stderr": ".err"} {
			if text, err := os.ReadFile(name + ext); err == nil {
				output[stream] = text
			}
		}
		base := filepath.Base(name)
		cli, _, _ := strings.Cut(base, "-")
		at := time.Date(2026, 11, 24, 2, 0, 0, 0, time.UTC)
		t.Run(base, func(t *testing.T) {
			f(t, cli, output, agented.Exit{Cause: how.Cause, Code: how.Code, Signal: how.Signal, StartedAt: at, FinishedAt: at})
		})
	}
}

func TestSecretsInProtocol(t *testing.T) {
	t.Parallel()
	db := emptyDB(t)
	masked := 0
	samples(t, func(t *testing.T, cli string, output map[string][]byte, exit agented.Exit) {
		want := record(t, db, cli, output, exit, nil).end(t)
		secrets := protocolWords(output["stdout"])
		r := record(t, db, cli, output, exit, secrets)
		m := redact.New(secrets)
		maskEnd(func(s string) string { return printed.MaskCut(m, s) }, &want)
		want.Model = m.MaskString(want.Model)
		got := r.end(t)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %s\nwant %s", asJSON(t, got), asJSON(t, want))
		}
		log := r.log(t)
		masked += strings.Count(log, redact.Mask)
		for _, s := range secrets {
			if strings.Contains(log, s) {
				t.Errorf("%s is in the log", s)
			}
			for _, text := range []string{got.Result, got.Reason, got.Error, got.Attempt.Reason, got.Attempt.Evidence, got.Limit.Evidence, got.Model, got.Attempt.SessionID} {
				if strings.Contains(text, s) {
					t.Errorf("%s is stored: %s", s, text)
				}
			}
		}
	})
	if masked < 1000 {
		t.Errorf("only %d masks: the secrets are no words of the protocol", masked)
	}
}

func asJSON(t *testing.T, end store.AttemptEnd) string {
	t.Helper()
	text, err := json.Marshal([]any{end.Attempt, end.Next, end.Reason, end.Error, end.Result, end.Limit, end.Model, end.Worked})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestSecretInText(t *testing.T) {
	t.Parallel()
	db := emptyDB(t)
	const secret = "s3cret-of-the-trigger"
	line := func(text string) map[string][]byte {
		return map[string][]byte{"stdout": []byte(claudeInit + "\n" + `{"type":"result","subtype":"success","is_error":false,"result":"` + text + `","session_id":"` + secret + `","total_cost_usd":0.1}` + "\n")}
	}
	exit := agented.Exit{Cause: agented.CauseExit, Code: new(int)}
	t.Run("result_is_masked", func(t *testing.T) {
		end := record(t, db, agented.BackendClaude, line("it is "+secret+"."), exit, []string{secret}).end(t)
		if end.Result != "it is ***." || end.Attempt.State != agented.StateSuccess {
			t.Errorf("%s: result %q", end.Attempt.State, end.Result)
		}
	})
	t.Run("session_with_secret_is_not_resumed", func(t *testing.T) {
		if end := record(t, db, agented.BackendClaude, line("x"), exit, []string{secret}).end(t); end.Attempt.SessionID != "" {
			t.Errorf("session %q", end.Attempt.SessionID)
		}
	})
	t.Run("cut_leaves_no_beginning", func(t *testing.T) {
		for at := range len(secret) {
			long := strings.Repeat("x", agented.MaxResult-60+at) + secret + strings.Repeat("y", 200)
			end := record(t, db, agented.BackendClaude, line(long), exit, []string{secret}).end(t)
			if strings.Contains(end.Result, secret[:4]) {
				t.Fatalf("at %d: the result ends with %q", at, end.Result[len(end.Result)-100:])
			}
		}
	})
	t.Run("changed_secrets_keep_the_mask", func(t *testing.T) {
		r := record(t, db, agented.BackendClaude, line("it is "+secret+"."), exit, []string{secret})
		r.e.Snapshot.Env = nil // as a secret of the server that was replaced meanwhile
		if end := r.end(t); strings.Contains(end.Result+end.Attempt.SessionID, secret) {
			t.Errorf("result %q, session %q", end.Result, end.Attempt.SessionID)
		}
	})
	t.Run("key_of_several_lines", func(t *testing.T) {
		out := []byte("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\nQyNTUxOQAAACBTb21lT3RoZXJCeXRlc1RoYXRBcmVOb3RBS2V5AAAAJgAAAAAAAAAAAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
		r := record(t, db, agented.BackendCodex, map[string][]byte{"stderr": out}, agented.Exit{Cause: agented.CauseExit, Code: new(1)}, []string{secret})
		if end := r.end(t); strings.Contains(asJSON(t, end), "b3BlbnNzaC1rZXk") || strings.Contains(asJSON(t, end), "QyNTUxOQ") {
			t.Errorf("the end has a key: %s", asJSON(t, end))
		}
	})
}
