package api_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/agented/agented"
)

// Deliveries arrive while triggers are edited continuously, including the one
// that the deliveries fire.
func TestHook_during_trigger_edits(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	secret := `{"source":"webhook","auth":{"kind":"hmac"},"secret":"` + otherSecret + `"}`
	target := g.trigger(hookTrigger("target", secret))
	editing, stop := context.WithCancel(t.Context())
	defer stop()
	var writers, senders sync.WaitGroup
	var edits atomic.Int64
	for w := range 4 {
		id := target
		if w > 0 {
			id = g.trigger(hookTrigger(fmt.Sprint("edited-", w), secret))
		}
		writers.Go(func() {
			for n := 0; editing.Err() == nil; n++ {
				g.admin("PATCH", "/api/v1/triggers/"+id, fmt.Sprintf(`{"prompt":"Version %d of {payload}"}`, n)).want(200)
				edits.Add(1)
			}
		})
	}
	const each = 25
	var accepted, repeated atomic.Int64
	for s := range 4 {
		senders.Go(func() {
			for n := range each {
				body := fmt.Sprintf(`{"sender":%d,"n":%d}`, s, n)
				for range 2 {
					a := g.send(g.client(), "POST", "/hooks/"+target, body, with("X-Webhook-Signature-256", hexMAC(otherSecret, body)), with("Idempotency-Key", fmt.Sprint(s, "-", n)))
					if a.status != http.StatusAccepted {
						t.Errorf("delivery %d of sender %d: status %d: %s", n, s, a.status, a.body)
						continue
					}
					switch r := a.received(); {
					case r.Duplicate:
						repeated.Add(1)
					case r.Verdict == agented.VerdictAccepted && len(r.ExecutionIDs) == 1:
						accepted.Add(1)
					default:
						t.Errorf("delivery %d of sender %d: %+v", n, s, r)
					}
				}
			}
		})
	}
	senders.Wait()
	stop()
	writers.Wait()
	t.Logf("%d edits", edits.Load())
	if accepted.Load() != 4*each || repeated.Load() != 4*each {
		t.Errorf("%d accepted and %d duplicates, want %d of each", accepted.Load(), repeated.Load(), 4*each)
	}
}
