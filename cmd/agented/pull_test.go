package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agented/agented/internal/github/githubtest"
	"github.com/agented/agented/internal/testrun"
)

// pullRequest is an event that fires the trigger of TestPull_killed.
func pullRequest(n int) map[string]any {
	return map[string]any{
		"action": "labeled", "number": n, "label": map[string]string{"name": "go"},
		"pull_request": map[string]any{"number": n, "title": fmt.Sprint(n), "author_association": "OWNER", "user": map[string]string{"login": "ann", "type": "User"}},
		"repository":   map[string]string{"full_name": "o/r"}, "sender": map[string]string{"login": "ann", "type": "User"},
	}
}

// TestPull_killed kills a server while it fetches the deliveries that it missed,
// and while GitHub delivers others to it. Each fires once.
func TestPull_killed(t *testing.T) {
	t.Parallel()
	hub := githubtest.New(t)
	hub.AddRepo("o/r")
	app := hub.AddApp("agented-test", "o")
	key := filepath.Join(t.TempDir(), "app.pem")
	if err := os.WriteFile(key, app.Key, 0o600); err != nil {
		t.Fatal(err)
	}
	s := newServer(t, "GITHUB_WEBHOOK_SECRET="+stormSecret, "AGENTED_MAX_CONCURRENT=1", "LOG_LEVEL=info",
		"AGENTED_GITHUB_API_URL="+hub.URL, "GITHUB_APP_ID="+app.ID, "GITHUB_APP_PRIVATE_KEY_FILE="+key, "AGENTED_GITHUB_PULL=1s", "AGENTED_GITHUB_HOOKS=o/r")
	s.call("PUT", "/api/v1/drain", map[string]any{"drained": true}, nil)
	trigger := s.trigger(map[string]any{
		"name": "labelled", "backend": "command", "command": []string{"true"}, "max_concurrent": 0,
		"webhooks": []any{map[string]any{"source": "github", "match": map[string]any{"events": []string{"pull_request.labeled"}}}},
	})
	hook := hub.AddHook("o/r", "http://"+s.addr+"/hooks/github", stormSecret)
	s.kill()

	n := testrun.Size(60, 120, 270)
	var missed []string
	for i := range n {
		missed = append(missed, hook.Record("pull_request", pullRequest(i)))
		for range 5 {
			hook.Record("push", map[string]string{"ref": "refs/heads/main"})
		}
	}
	hub.Do(func() { hook.Shift = 1 })
	want := slices.Clone(missed)
	for kills := range 4 {
		s.start()
		if kills < 3 {
			s.waitFor("some deliveries to be fetched", func() bool { return fetchedBodies(hub) >= (kills+1)*n/5 })
		}
		if kills == 1 { // GitHub reaches the server meanwhile
			var mu sync.Mutex
			var wg sync.WaitGroup
			for i := range 10 {
				wg.Go(func() {
					guid, _ := hook.Deliver("pull_request", pullRequest(1000+i))
					mu.Lock()
					want = append(want, guid)
					mu.Unlock()
				})
			}
			wg.Wait()
		}
		if kills < 3 {
			s.kill()
		}
	}
	s.waitFor("all deliveries to be stored", func() bool { return len(firedKeys(s, trigger)) >= len(want) })
	s.waitFor("a round to end", func() bool {
		var got struct {
			Items []struct {
				Name     string     `json:"name"`
				Success  *time.Time `json:"last_success_at"`
				Waiting  int        `json:"waiting"`
				Problem  string     `json:"problem"`
				Position *time.Time `json:"handled_until"`
			} `json:"items"`
		}
		s.call("GET", "/api/v1/pull-sources", nil, &got)
		return len(got.Items) == 1 && got.Items[0].Success != nil && got.Items[0].Waiting == 0 && got.Items[0].Problem == "" && got.Items[0].Position != nil
	})
	got := firedKeys(s, trigger)
	inOrder := slices.DeleteFunc(slices.Clone(got), func(guid string) bool { return !slices.Contains(missed, guid) })
	if !slices.Equal(inOrder, missed) {
		t.Errorf("%d missed deliveries fired in another order, or not once each; %d were missed", len(inOrder), len(missed))
	}
	slices.Sort(got)
	if slices.Sort(want); !slices.Equal(got, want) {
		t.Errorf("%d executions, want %d", len(got), len(want))
	}
	checkNoSecret(t, s, string(app.Key))
}

// fetchedBodies returns how many bodies of deliveries were fetched.
func fetchedBodies(hub *githubtest.Server) (n int) {
	for _, c := range hub.Calls() {
		if strings.Contains(c.Path, "/deliveries/") && c.Status == http.StatusOK {
			n++
		}
	}
	return n
}

// firedKeys returns the ids of GitHub's deliveries that fired a trigger, once
// for each execution, oldest first.
func firedKeys(s *server, trigger string) (guids []string) {
	query := url.Values{"trigger_id": {trigger}, "limit": {"200"}}
	for {
		var page struct {
			Items []struct {
				Key        string   `json:"key"`
				Source     string   `json:"source"`
				Executions []string `json:"execution_ids"`
			} `json:"items"`
			Next *string `json:"next_cursor"`
		}
		s.call("GET", "/api/v1/deliveries?"+query.Encode(), nil, &page)
		for _, d := range page.Items {
			for range d.Executions {
				guids = append(guids, strings.TrimPrefix(d.Key, "github:"))
			}
		}
		if page.Next == nil {
			slices.Reverse(guids)
			return guids
		}
		query.Set("cursor", *page.Next)
	}
}

// checkNoSecret checks that answers of the API contain neither the key nor a
// token of the App.
func checkNoSecret(t *testing.T, s *server, key string) {
	t.Helper()
	line := strings.Split(key, "\n")[3]
	for _, path := range []string{"/api/v1/pull-sources", "/api/v1/config", "/api/v1/deliveries"} {
		var body json.RawMessage
		s.call("GET", path, nil, &body)
		if strings.Contains(string(body), line) || strings.Contains(string(body), "ghs_0") {
			t.Errorf("%s contains a secret", path)
		}
	}
}
