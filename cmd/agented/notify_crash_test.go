package main_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"
)

// The server is killed while a receiver has a message that it has not answered, several times. Each
// event arrives, in order, and a repetition has the id of the first attempt.
func TestNotifications_killed_while_sending(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var ids []string // accepted, without repetitions
	repeated := 0
	holding, release := make(chan struct{}), make(chan struct{})
	hold := map[int]bool{1: true, 3: true, 6: true}
	calls := 0
	r := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		id := q.Header.Get("Webhook-Id")
		mu.Lock()
		calls++
		held := hold[calls]
		if slices.Contains(ids, id) {
			repeated++
		} else {
			ids = append(ids, id)
		}
		mu.Unlock()
		if held {
			holding <- struct{}{}
			select {
			case <-release: // the server is gone
			case <-time.After(2 * time.Minute):
			}
		}
	}))
	defer r.Close()
	s := newServer(t, "AGENTED_NOTIFY_ALLOW=127.0.0.0/8")
	s.call("POST", "/api/v1/channels", map[string]any{"name": "ops", "kind": "webhook", "url": r.URL, "events": []string{"failed"}}, nil)
	trigger := s.trigger(sh("bad", "exit 3", nil))
	const events = 6
	var fired []string
	for range events {
		fired = append(fired, s.fire(trigger))
	}
	for range len(hold) {
		select {
		case <-holding:
		case <-time.After(2 * time.Minute):
			t.Fatal("no message arrived")
		}
		s.kill()
		release <- struct{}{}
		s.start()
	}
	for _, id := range fired {
		s.await(id)
	}
	type page struct {
		Items []struct{ ID, Status string }
	}
	var sent page
	s.waitFor("all messages", func() bool {
		sent = page{}
		s.call("GET", "/api/v1/notifications?channel=ops&status=sent", nil, &sent)
		return len(sent.Items) == events
	})
	var want []string
	for _, n := range slices.Backward(sent.Items) {
		want = append(want, n.ID)
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(ids, want) || repeated != len(hold) {
		t.Errorf("received %q, want %q; %d repetitions", ids, want, repeated)
	}
	var rest page
	if s.call("GET", "/api/v1/notifications", nil, &rest); len(rest.Items) != events {
		t.Errorf("notifications %v", rest.Items)
	}
}
