package reseal

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/notices"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/store/storetest"
	"github.com/agented/agented/internal/testrun"
	"github.com/agented/agented/internal/vault"
)

// The environment of the process that TestMain kills in the middle.
const (
	childDB    = "RESEAL_TEST_DB"
	childAfter = "RESEAL_TEST_KILL_AFTER" // transactions
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childDB); path != "" {
		os.Exit(child(path))
	}
	testrun.Contain()
	os.Exit(m.Run())
}

func keyOf(text string) secret.Key {
	k, err := secret.Load(secret.Options{Value: strings.Repeat(text, 40)})
	if err != nil {
		panic(err)
	}
	return k
}

// child seals the database again, a row per transaction, and kills itself after some.
func child(path string) int {
	ctx := context.Background()
	db, err := store.Open(ctx, path, store.Options{})
	if err != nil {
		return 3
	}
	defer db.Close()
	after, _ := strconv.Atoi(os.Getenv(childAfter))
	s := &sealing{db: db, former: keyOf("a"), now: keyOf("b"), batch: 1}
	s.stored = func() {
		if after--; after == 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	if r, err := s.all(ctx); err != nil || len(r.Left) > 0 {
		return 4
	}
	return 0
}

const plain = "a-value-to-be-sealed"

// fill stores a value in every place, sealed with the former key, and returns the vault's reader.
func fill(t *testing.T, path string) {
	t.Helper()
	ctx := t.Context()
	db := storetest.Open(t, path, store.Options{})
	defer db.Close()
	former := keyOf("a")
	sealer := auth.NewSealer(former)
	v := vault.New(vault.Options{DB: db, Key: former})
	value, other, open := plain, plain+"-2", "{secret: s}"
	spec := agented.Spec{Backend: agented.BackendCommand, Command: []string{"true"}, Env: map[string]*string{"A": &value, "B": &other, "C": nil}}
	sealer.SealEnv(&spec, nil)
	if err := v.Create(ctx, &agented.Secret{Name: "s", Source: agented.SecretStored}, plain, "ada"); err != nil {
		t.Fatal(err)
	}
	if err := v.Update(ctx, mustSecret(t, db), &value, "ada"); err != nil {
		t.Fatal(err)
	}
	spec.Env["D"] = &open
	now := time.Now().UTC().Truncate(time.Microsecond)
	e := &agented.Execution{
		ID: agented.ExecutionID(agented.NewID("exec", now)), TriggerName: "t", Backend: agented.BackendCommand, Source: agented.SourceManual,
		CreatedAt: now, ScheduledAt: now, Snapshot: spec,
	}
	account := &agented.Account{Name: "x", Backend: agented.BackendClaude, Enabled: true, State: agented.AccountReady}
	account.ID = agented.AccountID(agented.NewID("acc", now))
	account.Credentials = map[string]string{"ANTHROPIC_API_KEY": sealer.SealCredential(account.ID, "ANTHROPIC_API_KEY", plain)}
	hook := agented.Webhook{ID: agented.NewID("whk", now), Source: agented.SourceWebhook, Enabled: true, Auth: []byte(`{"kind":"bearer"}`)}
	hook.Secret = sealer.SealWebhook(hook.ID, plain)
	err := errors.Join(
		db.CreateTrigger(ctx, &agented.Trigger{Name: "t", Spec: spec, Webhooks: []agented.Webhook{hook}}, "ada"),
		db.CreateAgent(ctx, &agented.Agent{Name: "a", Spec: spec}, "ada"),
		db.CreateAccount(ctx, account, "ada"),
	)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Admit(ctx, store.Admission{Execution: e}, now); err != nil {
		t.Fatal(err)
	}
	e.AttemptNo = 1
	if err := v.Resolve(ctx, e, []string{"s"}); err != nil {
		t.Fatal(err)
	}
	c := &notices.Channel{ID: agented.NewID("chan", now), Name: "c", Kind: notices.Slack, CreatedAt: now, UpdatedAt: now}
	c.Settings.URL, c.Settings.Password = sealer.SealChannel(c.ID, "url", plain), sealer.SealChannel(c.ID, "password", plain+`"`)
	if err := db.Update(ctx, "channel", func(tx store.Tx) error { return notices.Insert(tx, c) }); err != nil {
		t.Fatal(err)
	}
	// What attempts that run may still have of an account.
	err = db.Update(ctx, "former credentials", func(tx store.Tx) error {
		return tx.Exec(`UPDATE account SET previous_credentials = credentials WHERE id = $1`, account.ID)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func mustSecret(t *testing.T, db *store.DB) *agented.Secret {
	t.Helper()
	s, err := db.Secret(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// readable checks that each sealed value opens with one of the keys, and returns the places with
// their numbers of values.
func readable(t *testing.T, path string, keys ...secret.Key) map[string]int {
	t.Helper()
	db, err := store.Open(t.Context(), path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	found := map[string]int{}
	for _, p := range places {
		for _, k := range keys {
			s := &sealing{db: db, former: k, batch: 100}
			rows, err := s.rows(t.Context(), p, make([]string, len(p.key)))
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rows {
				values, err := p.values(r.key, r.text)
				if err != nil {
					t.Fatal(err)
				}
				for _, v := range values {
					if !strings.HasPrefix(v.sealed, k.Marker()) {
						continue
					}
					got, err := k.OpenText(v.purpose, v.name, v.sealed)
					if err != nil || !strings.HasPrefix(got, plain) {
						t.Errorf("%s.%s %v: %q, %v", p.table, p.column, r.key, got, err)
					}
					found[p.table+"."+p.column]++
				}
			}
		}
	}
	return found
}

// The process is killed after each of the transactions. Every value is always sealed with one of the
// keys, and in the end all are with the new one.
func TestAll_killed_after_each_row(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agented.db")
	fill(t, path)
	former, now := keyOf("a"), keyOf("b")
	before := readable(t, path, former)
	for _, p := range places {
		if before[p.table+"."+p.column] == 0 {
			t.Fatalf("the test stores no value in %s.%s", p.table, p.column)
		}
	}
	kills := 0
	for {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
		if self, err := os.Executable(); err == nil {
			cmd.Path = self
		}
		cmd.Env = append(os.Environ(), childDB+"="+path, childAfter+"=1")
		err := cmd.Run()
		if got := readable(t, path, former, now); !equal(got, before) {
			t.Fatalf("after %d kills: %v, before %v", kills, got, before)
		}
		if err == nil {
			break
		}
		if state := cmd.ProcessState.Sys().(syscall.WaitStatus); !state.Signaled() || state.Signal() != syscall.SIGKILL {
			t.Fatalf("after %d kills: %v", kills, err)
		}
		if kills++; kills > 100 {
			t.Fatal("there is no progress")
		}
	}
	if kills < len(places) {
		t.Errorf("%d kills in %d places", kills, len(places))
	}
	if got := readable(t, path, now); !equal(got, before) {
		t.Errorf("with the new key %v, before %v", got, before)
	}
}

func equal(a, b map[string]int) bool {
	for k, n := range a {
		if b[k] != n {
			return false
		}
	}
	return len(a) == len(b)
}

// A value in a column that this package does not know keeps the former key, and one that was
// modified stays as it is.
func TestAll_left(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agented.db")
	fill(t, path)
	db, err := store.Open(t.Context(), path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	former, now := keyOf("a"), keyOf("b")
	err = db.Update(t.Context(), "values that cannot be sealed", func(tx store.Tx) error {
		return errors.Join(
			tx.Exec(`UPDATE agent SET goals = $1`, former.SealText("another purpose", "x", plain)),
			tx.Exec(`UPDATE webhook SET secret = $1`, former.SealText(secret.PurposeWebhook, "another webhook", plain)),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r, err := All(t.Context(), db, former, now)
		if err != nil || !slices.Equal(r.Left, []string{"agent.goals", "webhook.secret"}) {
			t.Errorf("%+v, %v", r, err)
		}
	}
	if r, err := All(t.Context(), db, now, now); err != nil || r.Values != 0 || r.Left != nil {
		t.Errorf("with one key: %+v, %v", r, err)
	}
}
