package anthropicapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/anthropicapi"
	"github.com/agented/agented/internal/clireal"

	"github.com/agented/agented/internal/testrun"
)

const (
	key     = "sk-ant-api03-stand-in-key-0123456789"
	session = "0a1b2c3d-0000-8000-8000-000000000000"
)

// table is a stand-in for the API with the results of requests.
type table struct {
	t       *testing.T
	standIn *clireal.StandIn
	url     string
	dir     string
	waits   []time.Duration
}

func newTable(t *testing.T) *table {
	t.Helper()
	standIn := &clireal.StandIn{Resets: time.Now().Add(3 * time.Hour).Truncate(time.Second)}
	server := httptest.NewServer(standIn)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return &table{t: t, standIn: standIn, url: server.URL, dir: filepath.Join(t.TempDir(), "sessions")}
}

// asked is the result of one request.
type asked struct {
	code     int
	out, err string
	result   agented.Result
	model    string // model that the meter detected
	usage    agented.Usage
}

func (b *table) ask(scenario clireal.Scenario, change func(*anthropicapi.Options)) asked {
	b.t.Helper()
	var out, stderr bytes.Buffer
	o := anthropicapi.Options{
		Session: session, Dir: b.dir, Prompt: "Say hello.", Key: key, Base: b.url + "/" + string(scenario), Direct: b.url + "/" + string(scenario),
		Version: "1.2.3", Out: &out, Err: &stderr,
		Wait: func(_ context.Context, d time.Duration) error { b.waits = append(b.waits, d); return nil },
	}
	if change != nil {
		change(&o)
	}
	b.waits = nil
	a := asked{code: anthropicapi.Run(b.t.Context(), o), out: out.String(), err: stderr.String()}
	be, _ := registry.ByName(agented.BackendAnthropic)
	reader, meter := agentcli.NewReader(be), agentcli.NewMeter("", agentcli.DefaultPrices())
	for line := range strings.Lines(a.out) {
		events := agentcli.Decode(be, agented.Stdout, []byte(strings.TrimSuffix(line, "\n")))
		reader.Add(events)
		meter.Add(events)
	}
	for line := range strings.Lines(a.err) {
		reader.Add(agentcli.Decode(be, agented.Stderr, []byte(strings.TrimSuffix(line, "\n"))))
	}
	a.result = reader.Result(agented.Exit{Cause: agented.CauseExit, Code: &a.code}, time.Now())
	a.model, a.usage = meter.Model(), meter.Usage()
	if strings.Contains(a.out+a.err, key) {
		b.t.Errorf("%s: the key was printed:\n%s\n%s", scenario, a.out, a.err)
	}
	return a
}

// sent returns the messages of the last request, as roles and texts.
func (b *table) sent() (messages []string, system string) {
	b.t.Helper()
	requests := b.standIn.Requests()
	var body struct {
		System   string
		Messages []struct {
			Role    string
			Content []struct{ Text string }
		}
	}
	if err := json.Unmarshal(requests[len(requests)-1].Body, &body); err != nil {
		b.t.Fatal(err)
	}
	for _, m := range body.Messages {
		text := m.Role + ":"
		for _, c := range m.Content {
			text += " " + c.Text
		}
		messages = append(messages, text)
	}
	return messages, body.System
}

func TestAnswer_printed_as_claude_code(t *testing.T) {
	t.Parallel()
	b := newTable(t)
	a := b.ask(clireal.Text, func(o *anthropicapi.Options) { o.Pieces, o.System = true, "You are a test." })
	if a.code != 0 || a.result.Outcome != agented.OutcomeSuccess || a.result.Text != clireal.Answer || a.result.SessionID != session || a.result.CLIVersion != "1.2.3" {
		t.Fatalf("%+v\n%s%s", a.result, a.out, a.err)
	}
	if u := a.result.Usage; u.InputTokens == nil || *u.InputTokens != 100 || *u.OutputTokens != 20 || *u.CacheReadTokens != 11 || *u.CacheWriteTokens != 7 {
		t.Errorf("usage %+v", u)
	}
	if a.model != anthropicapi.DefaultModel || a.usage.CostUSD == nil || *a.usage.CostUSD <= 0 || !a.usage.Estimated {
		t.Errorf("the meter saw %s and %+v: is the default model in the list of prices?", a.model, a.usage)
	}
	tr := agentcli.NewTranscript()
	var pieces []string
	for line := range strings.Lines(a.out) {
		for _, s := range tr.Add(registry.Decode(agented.BackendAnthropic, []byte(line))) {
			if s.Kind == agentcli.ItemText && !s.Whole {
				pieces = append(pieces, s.Text)
			}
		}
	}
	if len(pieces) < 2 || strings.Join(pieces, "") != clireal.Answer {
		t.Errorf("pieces %q", pieces)
	}
	messages, system := b.sent()
	if system != "You are a test." || strings.Join(messages, "|") != "user: Say hello." {
		t.Errorf("sent %q, system %q", messages, system)
	}
	if h := b.standIn.Requests()[0].Header; h.Get("X-Api-Key") != key || h.Get("Anthropic-Version") == "" {
		t.Errorf("header %v", h)
	}
}

func TestAPI_errors_classified(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		scenario clireal.Scenario
		class    agented.Class
		calls    int
		says     string
	}{
		{clireal.Limited, "", 3, ""}, // and then answers
		{clireal.Limit, agented.ClassThrottle, 6, "rate limit"},
		{clireal.LongLimit, agented.ClassAccountLimit, 1, "rate limit"},
		{clireal.UsageLimit, agented.ClassAccountLimit, 1, "five-hour"},
		{clireal.Overloaded, agented.ClassOverload, 6, "Overloaded"},
		{clireal.Broken, agented.ClassOverload, 6, "Internal server error"},
		{clireal.Refused, agented.ClassAuth, 1, "invalid x-api-key"},
		{clireal.Quota, agented.ClassBilling, 1, "credit balance"},
		{clireal.Cut, agented.ClassNetwork, 6, "connection"},
		{clireal.Drop, agented.ClassNetwork, 1, "connection"},
		{clireal.Empty, agented.ClassAgentFailure, 1, "no answer"},
	} {
		t.Run(string(c.scenario), func(t *testing.T) {
			t.Parallel()
			b := newTable(t)
			a := b.ask(c.scenario, nil)
			if c.class == "" {
				if a.result.Outcome != agented.OutcomeSuccess || a.result.Text != clireal.Answer {
					t.Errorf("%+v\n%s", a.result, a.out)
				}
			} else if a.result.Class != c.class || !strings.Contains(a.result.Reason, c.says) || !strings.HasPrefix(a.result.Reason, "anthropic ") {
				t.Errorf("class %q, reason %q\n%s", a.result.Class, a.result.Reason, a.out)
			}
			if n := len(b.standIn.Requests()); n != c.calls || len(b.waits) != n-1 {
				t.Errorf("%d calls with waits %v, want %d", n, b.waits, c.calls)
			}
			until := time.Until(a.result.Limit.Until)
			switch c.scenario {
			case clireal.LongLimit:
				if until < 55*time.Minute || until > time.Hour {
					t.Errorf("lifts in %v", until)
				}
			case clireal.UsageLimit:
				if !a.result.Limit.Until.Equal(b.standIn.Resets) || a.result.Limit.Window != "five_hour" {
					t.Errorf("lifts at %v, window %q", a.result.Limit.Until, a.result.Limit.Window)
				}
			}
		})
	}
}

func TestHistory_resumed(t *testing.T) {
	t.Parallel()
	b := newTable(t)
	b.ask(clireal.Text, func(o *anthropicapi.Options) { o.Prompt = "Remember rhubarb." })
	// A prompt without an answer is also in the history.
	b.ask(clireal.Overloaded, func(o *anthropicapi.Options) { o.Prompt, o.Resume = "Unheard.", true })
	// And an answer whose process was killed while it wrote.
	file := filepath.Join(b.dir, session+".jsonl")
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"role":"assistant","text":"half a li`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	a := b.ask(clireal.Text, func(o *anthropicapi.Options) { o.Prompt, o.Resume = "Which word?", true })
	if a.result.Outcome != agented.OutcomeSuccess {
		t.Fatalf("%+v", a.result)
	}
	got, _ := b.sent()
	want := []string{"user: Remember rhubarb.", "assistant: " + clireal.Answer, "user: Unheard. Which word?"}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("sent %q, want %q", got, want)
	}
	text, _ := os.ReadFile(file)
	if n := strings.Count(string(text), "\n"); n != 5 || strings.Contains(string(text), "half a li") || !strings.HasSuffix(string(text), "\n") {
		t.Errorf("history of %d lines:\n%s", n, text)
	}
	if info, _ := os.Stat(file); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestHistory_missing(t *testing.T) {
	t.Parallel()
	b := newTable(t)
	a := b.ask(clireal.Text, func(o *anthropicapi.Options) { o.Resume = true })
	if !a.result.SessionGone || a.result.Outcome == agented.OutcomeSuccess {
		t.Errorf("%+v", a.result)
	}
	if a.result.SessionID != "" && len(b.standIn.Requests()) > 0 {
		t.Error("it was asked nevertheless")
	}
	for _, id := range []string{"", "../x", "a/b", "-x", strings.Repeat("a", 300)} {
		if a := b.ask(clireal.Text, func(o *anthropicapi.Options) { o.Session = id }); a.code == 0 {
			t.Errorf("session %q was opened", id)
		}
	}
}

func TestProxy_silent(t *testing.T) {
	t.Parallel()
	dead := "http://user:secret-password@" + testrun.FreeAddress(t)
	answering := func(status int) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		t.Cleanup(s.Close)
		return s.URL
	}
	for name, c := range map[string]struct {
		base   string
		direct bool
	}{
		"refused": {dead, true}, "no such name": {"http://proxy.invalid", true}, "502": {answering(502), true}, "503": {answering(503), true}, "504": {answering(504), true},
		"500 is an answer": {answering(500), false}, "401 is an answer": {answering(401), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newTable(t)
			a := b.ask(clireal.Text, func(o *anthropicapi.Options) { o.Base = c.base + "/" })
			if (a.result.Outcome == agented.OutcomeSuccess) != c.direct || (len(b.standIn.Requests()) == 1) != c.direct {
				t.Errorf("%+v, %d calls went to the API itself", a.result, len(b.standIn.Requests()))
			}
			if strings.Contains(a.err, "directly") != c.direct || strings.Contains(a.err+a.out, "secret-password") {
				t.Errorf("it says %q", a.err)
			}
		})
	}
}

func TestCredentials_missing(t *testing.T) {
	t.Parallel()
	b := newTable(t)
	a := b.ask(clireal.Text, func(o *anthropicapi.Options) { o.Key = "" })
	if a.result.Class != agented.ClassAuth || len(b.standIn.Requests()) != 0 {
		t.Errorf("%+v", a.result)
	}
	a = b.ask(clireal.Text, func(o *anthropicapi.Options) { o.Key, o.Token = "", "a-token-of-a-proxy" })
	if h := b.standIn.Requests()[0].Header; a.code != 0 || h.Get("Authorization") != "Bearer a-token-of-a-proxy" || h.Get("X-Api-Key") != "" {
		t.Errorf("%+v %v", a.result, h)
	}
}

func TestKey_redirect(t *testing.T) {
	t.Parallel()
	b := newTable(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/echo") {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"error":{"type":"invalid_request_error","message":"bad key %s"}}`, r.Header.Get("X-Api-Key"))
			return
		}
		http.Redirect(w, r, b.url+"/text/v1/messages", http.StatusTemporaryRedirect)
	}))
	t.Cleanup(s.Close)
	for _, path := range []string{"/echo", "/redirect"} {
		if a := b.ask(clireal.Text, func(o *anthropicapi.Options) { o.Base = s.URL + path }); a.code == 0 || len(b.standIn.Requests()) != 0 {
			t.Errorf("%s: %+v", path, a.result)
		}
	}
}

// streamed answers with the text as the body of a stream.
func streamed(t *testing.T, body string) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestAnswer_incomplete(t *testing.T) {
	t.Parallel()
	const begun = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"x\",\"usage\":{\"input_tokens\":1}}}\n\n" +
		": a comment\ndata: {\"type\":\"ping\"}\n\ndata:{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"Half.\"}}\r\n\r\n"
	end := func(stop string) string {
		return begun + "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"" + stop + "\"}}\n\ndata: {\"type\":\"message_stop\"}\n\n"
	}
	for name, c := range map[string]struct {
		body  string
		class agented.Class
		says  string
	}{
		"whole":      {end("end_turn"), "", ""},
		"max tokens": {end("max_tokens"), agented.ClassAgentFailure, "truncated at"},
		"refusal":    {end("refusal"), agented.ClassAgentFailure, "declined"},
		"no end":     {begun, agented.ClassNetwork, "connection"},
		"error":      {begun + "data: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n", agented.ClassOverload, "Overloaded"},
		"too large":  {begun + "data: " + strings.Repeat("x", 3<<20) + "\n\n", agented.ClassAgentFailure, "too large"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newTable(t)
			a := b.ask(clireal.Text, func(o *anthropicapi.Options) { o.Base = streamed(t, c.body) })
			if a.result.Class != c.class || !strings.Contains(a.result.Reason, c.says) {
				t.Errorf("class %q, reason %q\n%s", a.result.Class, a.result.Reason, a.out)
			}
			if len(b.waits) != 0 {
				t.Errorf("asked again after pieces were printed: %v", b.waits)
			}
		})
	}
}
