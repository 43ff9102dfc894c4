package main_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/clireal"
)

// TestRealCLIs_broker_strict runs each CLI without a network: the broker is its only way to its model,
// whose API alone receives the key, and to a host of its allow-list.
func TestRealCLIs_broker_strict(t *testing.T) {
	guardWorks(t)
	local := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(local.Close)
	web := strings.TrimPrefix(local.URL, "http://")
	for _, name := range realCLINames {
		t.Run(name, func(t *testing.T) {
			key := brokerKeys[name]
			standIn := &clireal.StandIn{}
			s, trigger := brokerServer(t, name, standIn, clireal.Calls, "on")
			work := filepath.Join(s.dir, "cwd")
			if err := os.WriteFile(filepath.Join(work, "show.sh"), []byte(showCredentials), 0o600); err != nil {
				t.Fatal(err)
			}
			host, port, _ := strings.Cut(s.addr, ":")
			for _, command := range []string{
				"sh show.sh",
				"bash -c 'exec 3<>/dev/tcp/" + host + "/" + port + "' && touch leaked",
				"curl -sS --max-time 60 http://" + web + "/ && touch reached",
				"curl -sS --max-time 60 https://example.org && touch leaked",
				"touch made",
			} {
				standIn.Calls = append(standIn.Calls, shellCall(name, command))
			}
			trigger["sandbox"], trigger["working_dir"] = "strict", work
			trigger["network"] = map[string]any{"allow": []string{web}}
			e := s.awaitReal(s.fire(s.trigger(trigger)))
			if e.Status != "success" || e.Result == "" || len(e.Attempts) != 1 || e.Attempts[0].Sandbox != "strict" {
				t.Fatalf("%+v\n%s", e, s.logText(e.ID))
			}
			var shown struct {
				Attempts []struct{ Broker agented.BrokerUse }
			}
			s.call("GET", "/api/v1/executions/"+e.ID, nil, &shown)
			if b := shown.Attempts[0].Broker; !b.Credentials || !slices.ContainsFunc(b.Refused, func(r agented.RefusedAddress) bool { return r.Address == "example.org:443" }) {
				t.Errorf("the broker: %+v", b)
			} else {
				t.Logf("refused: %+v", b.Refused)
			}
			calls := 0
			for _, r := range standIn.Requests() {
				if r.Method == "POST" {
					calls++
					if r.Key != key {
						t.Errorf("the API received %q for %s", r.Key, r.Path)
					}
				}
			}
			if seen := bodies(standIn, 0); calls == 0 || strings.Contains(seen, reversed(key)) || !strings.Contains(seen, reversed("placeholder-of-agented-")) {
				t.Errorf("after %d calls, the model was given the credential, or no placeholder\n%s", calls, s.logText(e.ID))
			}
			for file, want := range map[string]bool{"made": true, "reached": true, "leaked": false} {
				if _, err := os.Stat(filepath.Join(work, file)); (err == nil) != want {
					t.Errorf("%s exists: %v, want %v\n%s", file, err == nil, want, s.logText(e.ID))
				}
			}
		})
	}
}
