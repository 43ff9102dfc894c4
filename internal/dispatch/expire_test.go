package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/store/storetest"
)

func openStore(t testing.TB) *store.DB {
	t.Helper()
	return storetest.Open(t, filepath.Join(t.TempDir(), "agented.db"), store.Options{Log: slog.New(slog.DiscardHandler)})
}

func TestMessage_expiry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := openStore(t)
		a := &agented.Agent{Name: "ann", Enabled: true, Spec: agented.Spec{Backend: agented.BackendClaude}}
		if err := db.CreateAgent(t.Context(), a, "test"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		var got []string
		d := New(Options{
			DB: db, Log: slog.New(slog.DiscardHandler),
			Observe: Observer{Expired: func(inbox agented.Address, seq int64) {
				got = append(got, fmt.Sprintf("%s %d after %v", inbox.Kind, seq, time.Since(began).Round(10*time.Millisecond)))
			}},
		})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- d.expireLoop(ctx) }()
		send := func(ttl time.Duration) {
			t.Helper()
			m := agented.BusMessage{
				Type: "message", Priority: agented.PriorityNormal, From: agented.Address{Kind: agented.ToUser, Name: "u"},
				To: agented.Address{Kind: agented.ToAgent, Name: "ann"}, Body: "hurry",
			}
			if ttl > 0 {
				m.ExpiresAt = time.Now().Add(ttl)
			}
			if _, err := d.Send(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait() // it sleeps for a minute
		send(10 * time.Minute)
		send(5 * time.Second)
		send(0)
		send(5 * time.Second)
		owner := agented.Address{Kind: agented.ToAgent, Name: string(a.ID)}
		if err := db.Acknowledge(t.Context(), owner, 4, time.Now()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, errDraining) {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{"agent 2 after 5s", "agent 1 after 10m0s"}, got); diff != "" {
			t.Errorf("expired (-want +got):\n%s", diff)
		}
	})
}
