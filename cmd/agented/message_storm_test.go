package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/testrun"
)

// follower reads an inbox continuously and reconnects after lost connections.
type follower struct {
	mu   sync.Mutex // guards seqs and bodies
	seqs []int64
	said []string
}

func (f *follower) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.seqs)
}

// followInbox follows an agent's inbox from its beginning until ctx ends.
func (s *server) followInbox(ctx context.Context, agent string, f *follower) error {
	c, err := client.New("http://"+s.addr, testKey)
	if err != nil {
		return err
	}
	return c.FollowFeed(ctx, "/api/v1/agents/"+agent+"/inbox/stream", "0", func(event, _ string, data []byte) error {
		if event != "message" {
			return nil
		}
		var got inboxItem
		if err := json.Unmarshal(data, &got); err != nil {
			return err
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.seqs, f.said = append(f.seqs, got.Seq), append(f.said, got.Message.Body)
		return nil
	}, nil)
}

type inboxItem struct {
	Seq     int64
	State   string
	Message struct{ ID, Body string }
}

// send posts one message with a key; status 0 means no answer.
func (s *server) send(c *http.Client, to, key, body string) (id string, status int) {
	text, err := json.Marshal(map[string]string{"to": to, "key": key, "body": body})
	if err != nil {
		panic(err)
	}
	req, err := http.NewRequest("POST", "http://"+s.addr+"/api/v1/messages", bytes.NewReader(text))
	if err != nil {
		panic(err)
	}
	req.Header.Set("X-API-Key", testKey)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return "", 0
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	var got struct{ Message struct{ ID string } }
	if err != nil || resp.StatusCode == http.StatusCreated && json.Unmarshal(answer, &got) != nil {
		return "", 0 // the answer was incomplete
	}
	return got.Message.ID, resp.StatusCode
}

// kilobytes returns the number in a line of /proc/PID/status.
func kilobytes(line string) int {
	n, _ := strconv.Atoi(strings.TrimSuffix(line, " kB"))
	return n
}

// TestMessages_storm_with_kill sends messages from 32 clients to many inboxes, each of which is
// followed, and kills the server meanwhile. AGENTED_STORM_MESSAGES sets the number of messages;
// each inbox receives a hundred.
func TestMessages_storm_with_kill(t *testing.T) {
	t.Parallel()
	count := testrun.Size(100, 300, 3000)
	if n, err := strconv.Atoi(os.Getenv("AGENTED_STORM_MESSAGES")); err == nil {
		count = n
	}
	const clients = 32
	inboxes := max(count/100, 1)
	s := newServer(t, "LOG_LEVEL=warning")
	for i := range inboxes {
		s.call("POST", "/api/v1/agents", map[string]any{"name": fmt.Sprint("box", i), "backend": "anthropic"}, nil)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	followers := make([]follower, inboxes)
	var following, sending sync.WaitGroup
	for i := range followers {
		following.Go(func() {
			if err := s.followInbox(ctx, fmt.Sprint("box", i), &followers[i]); err != nil && ctx.Err() == nil {
				t.Errorf("follow box%d: %v", i, err)
			}
		})
	}

	c := stormClient()
	var done, unanswered atomic.Int64
	killed, up := make(chan struct{}), make(chan struct{})
	ids := make([]string, count)
	began := time.Now()
	for who := range clients {
		sending.Go(func() {
			for n := who; n < count; n += clients {
				for {
					id, status := s.send(c, fmt.Sprint("box", n%inboxes), fmt.Sprint("storm-", n), fmt.Sprintf("%d:%d", who, n))
					if status == http.StatusCreated {
						ids[n] = id
						break
					}
					if status != 0 && status != http.StatusServiceUnavailable {
						t.Errorf("message %d: status %d", n, status)
						break
					}
					unanswered.Add(1) // not acknowledged: sent again
					select {
					case <-up:
						time.Sleep(20 * time.Millisecond) // interval of retries
					case <-time.After(20 * time.Millisecond):
					}
				}
				if done.Add(1) == int64(count/4) {
					close(killed)
				}
			}
		})
	}
	<-killed
	s.kill()
	s.start()
	close(up)
	s.waitFor("half of the messages", func() bool { return done.Load() >= int64(count/2) })
	early := kilobytes(s.status("VmRSS"))
	sending.Wait()
	took := time.Since(began)
	for i := range followers {
		s.waitFor(fmt.Sprintf("box%d to have all", i), func() bool { return followers[i].count() >= count/inboxes })
	}
	seen := time.Since(began)
	late := kilobytes(s.status("VmRSS"))
	cancel()
	following.Wait()
	t.Logf("%d messages by %d clients to %d followed inboxes through a kill in %v: %.0f/s, all seen after %v; %d were sent again because they were not answered; the server held %d MiB at half and %d MiB at the end",
		count, clients, inboxes, took.Round(time.Millisecond), float64(count)/took.Seconds(), seen.Round(time.Millisecond), unanswered.Load(), early>>10, late>>10)
	if early > 0 && late > early+early/2+32<<10 {
		t.Errorf("memory grew from %d to %d KiB", early, late)
	}

	total := 0
	for i := range followers {
		f := &followers[i]
		last := map[string]int{} // by sender
		for j, seq := range f.seqs {
			if seq != int64(j+1) {
				t.Fatalf("box%d: message %d came as number %d: it was lost or came twice", i, seq, j+1)
			}
			who, n, _ := strings.Cut(f.said[j], ":")
			number, _ := strconv.Atoi(n)
			if before, any := last[who]; any && number <= before {
				t.Errorf("box%d: client %s's message %d came behind %d", i, who, number, before)
			}
			last[who] = number
			total++
		}
	}
	if total != count {
		t.Errorf("%d messages came, %d were sent", total, count)
	}
	once := map[string]bool{}
	for n, id := range ids {
		if id == "" || once[id] {
			t.Errorf("message %d was acknowledged as %q, which is nothing or another one", n, id)
		}
		once[id] = true
	}
}

func TestWatch_expired_message(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.call("POST", "/api/v1/agents", map[string]any{"name": "ann", "backend": "anthropic"}, nil)
	c, err := client.New("http://"+s.addr, testKey)
	if err != nil {
		t.Fatal(err)
	}
	var events []string
	s.call("POST", "/api/v1/messages", map[string]any{"to": "ann", "body": "stays"}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = c.FollowFeed(ctx, "/api/v1/agents/ann/inbox/stream", "0", func(event, id string, data []byte) error {
		if event == "message" {
			events = append(events, event+" "+id)
			if id == "1" {
				s.call("POST", "/api/v1/messages", map[string]any{"to": "ann", "body": "goes", "ttl_seconds": 1}, nil)
			}
			return nil
		}
		events = append(events, event+" "+id+string(data))
		return io.EOF
	}, nil)
	if got := strings.Join(events, "|"); err != nil || got != `message 1|message 2|expired {"seq":2}` {
		t.Errorf("events %s (%v)", got, err)
	}
	var inbox struct{ Items []inboxItem }
	s.call("GET", "/api/v1/agents/ann/inbox?state=expired", nil, &inbox)
	if len(inbox.Items) != 1 || inbox.Items[0].Seq != 2 {
		t.Errorf("expired: %+v", inbox.Items)
	}
}
