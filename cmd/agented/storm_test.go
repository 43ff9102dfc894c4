package main_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agented/agented/internal/testrun"
)

const stormSecret = "the-secret-of-a-storm-of-deliveries"

// received is the answer to a delivery.
type received struct {
	Delivery   string   `json:"delivery_id"`
	Verdict    string   `json:"verdict"`
	Duplicate  bool     `json:"duplicate"`
	Executions []string `json:"execution_ids"`
}

// pushBody is an event as large as GitHub's pushes.
func pushBody(n int) []byte {
	return fmt.Appendf(nil, `{"ref":"refs/heads/b%d","after":"%040x","created":false,"deleted":false,"forced":false,"commits":[{"id":"%040x","added":["a.go"],"modified":["b.go"],"removed":[],"message":%q}],"head_commit":{"id":"%040x","message":"storm"},"repository":{"full_name":"o/r","html_url":"https://github.com/o/r"},"pusher":{"name":"mona"},"sender":{"login":"mona","type":"User"}}`,
		n, n, n, strings.Repeat("what was done and why it was needed, ", 150), n)
}

// deliver sends a signed push; status 0 means no answer.
func deliver(client *http.Client, addr, id string, body []byte) (received, int) {
	return deliverEvent(client, addr, "push", id, body)
}

// githubSignature signs a body with stormSecret as GitHub does.
func githubSignature(body []byte) string {
	mac := hmac.New(sha256.New, []byte(stormSecret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// deliverEvent sends a signed event of GitHub's; status 0 is no answer.
func deliverEvent(client *http.Client, addr, event, id string, body []byte) (received, int) {
	req, err := http.NewRequest("POST", "http://"+addr+"/hooks/github", bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-GitHub-Event", event)
	req.Header.Set("X-GitHub-Delivery", id)
	req.Header.Set("X-Hub-Signature-256", githubSignature(body))
	resp, err := client.Do(req)
	if err != nil {
		return received{}, 0
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	var got received
	if err != nil || resp.StatusCode == http.StatusAccepted && json.Unmarshal(text, &got) != nil {
		return received{}, 0 // the answer was incomplete
	}
	return got, resp.StatusCode
}

func stormClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: time.Minute}
}

// stormServer has one slot, which is occupied: executions that a delivery fires stay pending.
func stormServer(t *testing.T, triggers int) (*server, map[string]bool) {
	t.Helper()
	s := newServer(t, "GITHUB_WEBHOOK_SECRET="+stormSecret, "AGENTED_MAX_CONCURRENT=1", "LOG_LEVEL=warning")
	blocker := s.fire(s.trigger(sh("blocker", "while :; do sleep 1; done", map[string]any{"max_concurrent": 0})))
	t.Cleanup(func() {
		s.kill() // before the blocker ends: no other execution may start
		endMarked(t, []string{blocker})
		s.waitFor("the shim to end", func() bool { return len(shims(s.data())) == 0 })
	})
	s.waitFor("the blocker to run", func() bool {
		var e execution
		s.call("GET", "/api/v1/executions/"+blocker, nil, &e)
		return e.Status == "running"
	})
	ids := map[string]bool{}
	for i := range triggers {
		ids[s.trigger(map[string]any{
			"name": fmt.Sprintf("storm %d", i), "backend": "command", "command": []string{"true"}, "max_concurrent": 0,
			"webhooks": []any{map[string]any{"source": "github", "match": map[string]any{"events": []string{"push"}}}},
		})] = true
	}
	return s, ids
}

// TestWebhooks_storm_with_kill sends deliveries from 32 clients, 30 % of them twice, and kills
// the server meanwhile. AGENTED_STORM sets the number of deliveries.
func TestWebhooks_storm_with_kill(t *testing.T) {
	t.Parallel()
	calls := testrun.Size(100, 300, 3000)
	if n, err := strconv.Atoi(os.Getenv("AGENTED_STORM")); err == nil {
		calls = n
	}
	random := testrun.Rand(t)
	const clients = 32
	unique := calls * 7 / 10
	s, triggers := stormServer(t, 2)
	client := stormClient()

	// Each delivery once, and repetitions of random ones, in random order.
	order := make([]int, calls)
	for i := range order {
		if order[i] = i; i >= unique {
			order[i] = random.IntN(unique)
		}
	}
	random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })

	var mu sync.Mutex // guards answers and problems
	answers := map[int][]received{}
	var problems []string
	var at, done, unanswered atomic.Int64
	killed := make(chan struct{})
	began := time.Now()
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for {
				i := int(at.Add(1)) - 1
				if i >= calls {
					return
				}
				n := order[i]
				for {
					got, status := deliver(client, s.addr, fmt.Sprintf("guid-%d", n), pushBody(n))
					if status == 0 || status == http.StatusServiceUnavailable {
						unanswered.Add(1)
						select { // not answered: the sender retries
						case <-killed:
							time.Sleep(20 * time.Millisecond) // interval of retries
						case <-time.After(20 * time.Millisecond):
						}
						continue
					}
					mu.Lock()
					if status != http.StatusAccepted {
						problems = append(problems, fmt.Sprintf("delivery %d: status %d", n, status))
					}
					answers[n] = append(answers[n], got)
					mu.Unlock()
					break
				}
				if done.Add(1) == int64(calls/2) {
					close(killed)
				}
			}
		})
	}
	<-killed
	s.kill()
	s.start()
	wg.Wait()
	took := time.Since(began)
	t.Logf("%d calls (%d deliveries) by %d clients through a kill in %v: %.0f/s; %d were sent again because they were not answered",
		calls, unique, clients, took.Round(time.Millisecond), float64(calls)/took.Seconds(), unanswered.Load())
	for _, p := range problems[:min(len(problems), 10)] {
		t.Error(p)
	}

	fired := map[string]map[string]string{} // execution by delivery and trigger
	for trigger := range triggers {
		query := url.Values{"trigger_id": {trigger}, "limit": {"200"}}
		for {
			var page struct {
				Items []struct {
					ID    string `json:"id"`
					Cause struct {
						Delivery string `json:"delivery_id"`
					} `json:"cause"`
				} `json:"items"`
				Next *string `json:"next_cursor"`
			}
			s.call("GET", "/api/v1/executions?"+query.Encode(), nil, &page)
			for _, e := range page.Items {
				if fired[e.Cause.Delivery] == nil {
					fired[e.Cause.Delivery] = map[string]string{}
				}
				if other := fired[e.Cause.Delivery][trigger]; other != "" {
					t.Errorf("delivery %s fired %s and %s", e.Cause.Delivery, other, e.ID)
				}
				fired[e.Cause.Delivery][trigger] = e.ID
			}
			if page.Next == nil {
				break
			}
			query.Set("cursor", *page.Next)
		}
	}
	if len(fired) != unique {
		t.Errorf("%d deliveries fired, want %d", len(fired), unique)
	}
	for n := range unique {
		all := answers[n]
		if len(all) == 0 {
			t.Fatalf("delivery %d was never answered", n)
		}
		for _, a := range all {
			if a.Delivery != all[0].Delivery || len(a.Executions) != len(triggers) || strings.Join(a.Executions, " ") != strings.Join(all[0].Executions, " ") {
				t.Errorf("delivery %d was answered with %+v and %+v", n, all[0], a)
			}
		}
		for _, id := range all[0].Executions {
			found := false
			for _, have := range fired[all[0].Delivery] {
				found = found || have == id
			}
			if !found {
				t.Errorf("delivery %d was answered with %s, which is lost", n, id)
			}
		}
	}
}

// TestFiguresOfDeliveries measures how fast signed deliveries are accepted; it cannot fail
// because of the figures. It runs with AGENTED_FIGURES=1: make figures.
func TestFiguresOfDeliveries(t *testing.T) {
	if os.Getenv("AGENTED_FIGURES") == "" {
		t.Skip("measures, and is for an idle machine: set AGENTED_FIGURES=1, or make figures")
	}
	s, _ := stormServer(t, 1)
	client := stormClient()
	next := 0
	for _, clients := range []int{1, 32} {
		calls := 1000 * min(clients, 4)
		bodies := make([][]byte, calls)
		for i := range bodies {
			bodies[i] = pushBody(next + i)
		}
		took := make([]time.Duration, calls)
		var at atomic.Int64
		var wg sync.WaitGroup
		began := time.Now()
		for range clients {
			wg.Go(func() {
				for {
					i := int(at.Add(1)) - 1
					if i >= calls {
						return
					}
					sent := time.Now()
					if got, status := deliver(client, s.addr, fmt.Sprintf("figure-%d", next+i), bodies[i]); status != http.StatusAccepted || len(got.Executions) != 1 {
						t.Errorf("status %d", status)
					}
					took[i] = time.Since(sent)
				}
			})
		}
		wg.Wait()
		all := time.Since(began)
		next += calls
		t.Logf("%d clients: %.0f signed deliveries of %d bytes a second, each durable with its execution: %s",
			clients, float64(calls)/all.Seconds(), len(bodies[0]), quantiles(took))
	}
}
