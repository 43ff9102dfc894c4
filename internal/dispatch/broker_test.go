package dispatch_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/testrun"
)

// callModel calls a model as the environment says, as a CLI would, and prints the answer.
func callModel(path, key, address string) int {
	req, err := http.NewRequest(http.MethodPost, os.Getenv(address)+path, strings.NewReader("{}"))
	if err != nil {
		return 2
	}
	req.Header.Set("Authorization", "Bearer "+os.Getenv(key))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer res.Body.Close()
	if _, err := io.Copy(os.Stdout, res.Body); err != nil || res.StatusCode != http.StatusOK {
		return 1
	}
	return 0
}

// api is a stand-in for a provider, which records the keys of its calls.
func api(t *testing.T, answer http.HandlerFunc) (url string, keys chan string) {
	t.Helper()
	keys = make(chan string, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		keys <- strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		answer(w, r)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL, keys
}

// used answers with the usage of a model.
func used(model string, input int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"model":%q,"usage":{"input_tokens":%d,"input_tokens_details":{"cached_tokens":0},"output_tokens":1}}`+"\n", model, input)
	}
}

const realKey = "sk-the-real-credential-0123456789"

// brokered makes a script the program of codex, with a key and an API. $CALL in it calls a model.
func (h *house) brokered(script, url string) func(*dispatch.Options) {
	h.t.Helper()
	self, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	bin := filepath.Join(h.layout.Root, "bin")
	if err := os.MkdirAll(bin, 0o700); err != nil {
		h.t.Fatal(err)
	}
	text := "#!/bin/bash\nif [ \"$1\" = --version ]; then echo 'codex-cli 0.169.0'; exit; fi\ncat >/dev/null\n" +
		`echo '{"type":"thread.started","thread_id":"019a0000-0000-7000-8000-000000000001"}'` + "\n" +
		strings.ReplaceAll(script, "$CALL", "'"+self+"' call-model /responses CODEX_API_KEY OPENAI_BASE_URL")
	if err := testrun.WriteProgram(filepath.Join(bin, "codex"), []byte(text), 0o700); err != nil {
		h.t.Fatal(err)
	}
	return func(o *dispatch.Options) {
		o.Lookup = func(name string) (string, bool) { return bin + ":/usr/bin:/bin", name == "PATH" }
		o.Account = func(string) map[string]string {
			return map[string]string{"OPENAI_API_KEY": realKey, "OPENAI_BASE_URL": url + "/v1"}
		}
		o.Broker = func() bool { return true }
		o.Costs = h.costs(agentcli.DefaultPrices(), nil)
	}
}

func codexSpec() *agented.Spec {
	spec := claudeSpec()
	spec.Backend = agented.BackendCodex
	return spec
}

const codexEnd = `echo '{"type":"item.completed","item":{"id":"item_0","type":"agent_message","text":"done"}}'
echo '{"type":"turn.completed","usage":{"input_tokens":1,"cached_input_tokens":0,"output_tokens":1}}'
`

func TestBroker_keeps_credentials(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{true, false} {
		t.Run(fmt.Sprint(on), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			url, keys := api(t, used("gpt-5", 1))
			// Of its own: root sees the environments of other tests.
			realKey := realKey + fmt.Sprint(on)
			// Backwards, since the log masks credentials.
			d := h.dispatcher(func(o *dispatch.Options) {
				h.brokered("{ env; echo \"$@\"; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'; } | grep -a -e '^OPENAI' -e 'openai' -e '^CODEX' | rev\n$CALL\n"+codexEnd, url)(o)
				o.Broker = func() bool { return on }
				o.Account = func(string) map[string]string {
					return map[string]string{"OPENAI_API_KEY": realKey, "OPENAI_BASE_URL": url + "/v1"}
				}
			})
			defer h.run(d)()
			e := h.await(h.fire(d, codexSpec()))
			if e.State != agented.StateSuccess {
				t.Fatalf("%s: %s\n%s", e.State, e.Reason, h.text(e.ID))
			}
			if key := <-keys; key != realKey {
				t.Errorf("the API received %q", key)
			}
			if shown := strings.Contains(h.text(e.ID), backwards(realKey)); shown == on {
				t.Errorf("the agent has the credential: %v\n%s", shown, h.text(e.ID))
			}
			if shown := strings.Contains(h.text(e.ID), backwards("sk-placeholder-of-agented-")); on && !shown {
				t.Error("the agent has no placeholder")
			}
			err := filepath.WalkDir(h.layout.Execution(e.ID), func(path string, _ os.DirEntry, _ error) error {
				if text, _ := os.ReadFile(path); strings.Contains(string(text), realKey) {
					t.Errorf("%s contains the credential", path)
				}
				return nil // files are removed meanwhile
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func backwards(s string) string {
	b := []byte(s)
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return string(b)
}

// TestBroker_live_cost is about Codex, which prints its usage at the end only.
func TestBroker_live_cost(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		model string
		input int
		want  string
	}{
		"ceiling":  {"gpt-5", 1_000_000, "the cost has reached"},
		"unpriced": {"house-model", 1, `model "house-model" has no price`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			url, _ := api(t, used(c.model, c.input))
			d := h.dispatcher(h.brokered("$CALL\nsleep 1000\n", url))
			defer h.run(d)()
			spec := codexSpec()
			spec.CeilingUSD = 0.1
			id := h.fire(d, spec)
			until(t, "the cost guard", func() bool { return h.now(id).Pause != nil })
			defer h.end(d, id)
			if p := h.now(id).Pause; p.Question != agented.QuestionCeiling || !strings.Contains(p.Reason, c.want) {
				t.Errorf("it asks %+v", p)
			}
		})
	}
}

func TestBroker_limit_in_headers(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	url, _ := api(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7200")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	// The sentence of the CLI has no time.
	d := h.dispatcher(h.brokered("$CALL\n"+`echo '{"type":"turn.failed","error":{"message":"exceeded retry limit, last status: 429 Too Many Requests"}}'; exit 1`+"\n", url))
	defer h.run(d)()
	began := time.Now()
	id := h.fire(d, codexSpec())
	h.until(id, "parked", parked)
	defer h.end(d, id)
	account, err := h.db.Account(t.Context(), h.now(id).Attempts[0].Account)
	if err != nil {
		t.Fatal(err)
	}
	if wait := account.Until.Sub(began); wait < 2*time.Hour || wait > 3*time.Hour {
		t.Errorf("the account waits %s: %s", wait, h.now(id).Reason)
	}
}
