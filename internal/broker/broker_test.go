package broker_test

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented/internal/broker"
)

const (
	placeholder = "agented-placeholder-1"
	secret      = "sk-the-real-credential"
)

// started is a broker with the address that its CLI receives.
type started struct {
	*broker.Broker
	url, file string
}

func start(t testing.TB, c broker.Config) started {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "broker")
	b, err := broker.New(c, broker.Options{File: file})
	if err != nil {
		t.Fatal(err)
	}
	b.Serve(l)
	t.Cleanup(b.Close)
	return started{b, "http://" + l.Addr().String(), file}
}

// one returns the configuration of one route.
func one(vendor, prefix, upstream string) broker.Config {
	return broker.Config{Routes: []broker.Route{{Vendor: vendor, Prefix: prefix, Upstream: upstream, Keys: []broker.Key{{Placeholder: placeholder, Secret: secret}}}}}
}

// upstream is a stand-in for a provider that records its calls.
func upstream(t *testing.T, answer http.HandlerFunc) (url string, calls chan *http.Request) {
	t.Helper()
	calls = make(chan *http.Request, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen := r.Clone(context.Background())
		seen.Body = io.NopCloser(strings.NewReader(string(body)))
		calls <- seen
		answer(w, r)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL, calls
}

func ok(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "answer") }

// call sends a request and returns status and body.
func call(t *testing.T, method, url string, header http.Header, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		r.Header[name] = values
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func head(name, value string) http.Header { return http.Header{name: {value}} }

func TestBroker_forwards_each_vendor(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, vendor, prefix, path, base, wantPath string
		header                                     http.Header
		wantHeader, wantValue                      string
	}{
		{"anthropic_key", broker.Anthropic, "", "/v1/messages?beta=true", "", "/v1/messages?beta=true", head("X-Api-Key", placeholder), "X-Api-Key", secret},
		{"anthropic_oauth", broker.Anthropic, "", "/v1/messages", "/proxy", "/proxy/v1/messages", head("Authorization", "Bearer "+placeholder), "Authorization", "Bearer " + secret},
		{"openai", broker.OpenAI, "/v1", "/v1/responses", "/v1", "/v1/responses", head("Authorization", "Bearer "+placeholder), "Authorization", "Bearer " + secret},
		{"openai_compact", broker.OpenAI, "/v1", "/v1/responses/compact", "/v1", "/v1/responses/compact", head("Authorization", "Bearer "+placeholder), "Authorization", "Bearer " + secret},
		{"gemini", broker.Gemini, "", "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse", "", "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse", head("X-Goog-Api-Key", placeholder), "X-Goog-Api-Key", secret},
		{"gemini_query", broker.Gemini, "", "/v1beta/models/m:generateContent?key=" + placeholder + "&alt=sse", "", "/v1beta/models/m:generateContent?alt=sse", nil, "X-Goog-Api-Key", secret},
		{"opencode_anthropic", broker.Anthropic, "/anthropic", "/anthropic/v1/messages", "", "/v1/messages", head("X-Api-Key", placeholder), "X-Api-Key", secret},
		{"opencode_openai", broker.OpenAI, "/openai/v1", "/openai/v1/chat/completions", "/v1", "/v1/chat/completions", head("Authorization", "bearer "+placeholder), "Authorization", "bearer " + secret},
		{"opencode_google", broker.Gemini, "/google", "/google/v1beta/models/m:generateContent", "", "/v1beta/models/m:generateContent", head("X-Goog-Api-Key", placeholder), "X-Goog-Api-Key", secret},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			to, calls := upstream(t, ok)
			b := start(t, one(c.vendor, c.prefix, to+c.base))
			header := c.header.Clone()
			if header == nil {
				header = http.Header{}
			}
			header.Set("User-Agent", "the-cli/1.2")
			header.Set("Anthropic-Beta", "one,two")
			status, body := call(t, "POST", b.url+c.path, header, `{"model":"m"}`)
			if status != 200 || body != "answer" {
				t.Fatalf("%d %s", status, body)
			}
			r := <-calls
			sent, _ := io.ReadAll(r.Body)
			if r.URL.RequestURI() != c.wantPath || r.Header.Get(c.wantHeader) != c.wantValue || string(sent) != `{"model":"m"}` {
				t.Errorf("upstream received %s %v %s", r.URL.RequestURI(), r.Header, sent)
			}
			if r.Header.Get("User-Agent") != "the-cli/1.2" || r.Header.Get("Anthropic-Beta") != "one,two" || r.Header.Get("X-Forwarded-For") != "" {
				t.Errorf("headers were changed: %v", r.Header)
			}
			if all := fmt.Sprint(r.URL, r.Header); strings.Contains(all, placeholder) {
				t.Errorf("the placeholder was sent: %s", all)
			}
		})
	}
}

func TestBroker_refuses_other_paths(t *testing.T) {
	t.Parallel()
	to, calls := upstream(t, ok)
	for vendor, paths := range map[string][]string{
		broker.Anthropic: {"/", "/v1", "/v1/organizations/api_keys", "/v1/files", "/v1/messages/../files", "/v1/messages/batches", "/v1/messages%2f..%2ffiles", "//v1/messages", "/v2/messages", "/v1/messages/"},
		broker.OpenAI:    {"/v1/files", "/v1/fine_tuning/jobs", "/v1/organization/admin_api_keys", "/v1/responses/../files", "/responses", "/v1responses"},
		broker.Gemini:    {"/upload/v1beta/files", "/v1beta/files", "/v1beta/models/m:generateContent/x", "/v1beta/models/m:delete", "/v1beta"},
	} {
		prefix := ""
		if vendor == broker.OpenAI {
			prefix = "/v1"
		}
		b := start(t, one(vendor, prefix, to))
		for _, path := range paths {
			conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			// As it is: a client of the standard library would clean the path.
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", path, placeholder)
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != http.StatusForbidden {
				t.Errorf("%s %s: %s", vendor, path, res.Status)
			}
			conn.Close()
		}
	}
	if len(calls) > 0 {
		t.Errorf("%d calls were forwarded", len(calls))
	}
}

// With the real key, other methods would delete models and stored answers of the account, or read
// answers of others.
func TestBroker_refuses_other_methods(t *testing.T) {
	t.Parallel()
	to, calls := upstream(t, ok)
	for _, c := range []struct{ vendor, method, path string }{
		{broker.Anthropic, "DELETE", "/v1/messages"},
		{broker.Anthropic, "GET", "/v1/messages"},
		{broker.Anthropic, "POST", "/v1/models/claude-a"},
		{broker.OpenAI, "DELETE", "/v1/models/ft:gpt-a"},
		{broker.OpenAI, "DELETE", "/v1/responses/resp_1"},
		{broker.OpenAI, "GET", "/v1/responses/resp_1"},
		{broker.OpenAI, "POST", "/v1/models"},
		{broker.OpenAI, "GET", "/v1/chat/completions"},
		{broker.Gemini, "DELETE", "/v1beta/tunedModels/a"},
		{broker.Gemini, "PATCH", "/v1beta/tunedModels/a"},
		{broker.Gemini, "POST", "/v1beta/tunedModels"},
		{broker.Gemini, "GET", "/v1beta/models/m:generateContent"},
	} {
		prefix := ""
		if c.vendor == broker.OpenAI {
			prefix = "/v1"
		}
		b := start(t, one(c.vendor, prefix, to))
		req, err := http.NewRequestWithContext(t.Context(), c.method, b.url+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+placeholder)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("%s %s %s: %s", c.vendor, c.method, c.path, res.Status)
		}
	}
	if len(calls) > 0 {
		t.Errorf("%d calls were forwarded", len(calls))
	}
}

func TestBroker_requires_the_placeholder(t *testing.T) {
	t.Parallel()
	to, calls := upstream(t, ok)
	for name, header := range map[string]http.Header{
		"none":      nil,
		"wrong":     head("X-Api-Key", placeholder+"x"),
		"empty":     head("X-Api-Key", ""),
		"basic":     head("Authorization", "Basic "+placeholder),
		"bare":      head("Authorization", placeholder),
		"twice":     {"X-Api-Key": {placeholder, "other"}},
		"two_kinds": {"X-Api-Key": {placeholder}, "Authorization": {"Bearer other"}},
		"google":    head("X-Goog-Api-Key", placeholder),
		"real":      head("X-Api-Key", secret),
	} {
		b := start(t, one(broker.Anthropic, "", to))
		status, body := call(t, "POST", b.url+"/v1/messages", header, "{}")
		var answer struct {
			Error struct{ Type, Message string }
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusUnauthorized || answer.Error.Type != "authentication_error" {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	if len(calls) > 0 {
		t.Errorf("%d calls were forwarded", len(calls))
	}
}

func TestBroker_probes(t *testing.T) {
	t.Parallel()
	to, calls := upstream(t, ok)
	b := start(t, one(broker.OpenAI, "/v1", to))
	if status, _ := call(t, "HEAD", b.url+"/", nil, ""); status != 200 {
		t.Errorf("HEAD / is answered with %d", status)
	}
	if status, _ := call(t, "GET", b.url+"/v1/responses", http.Header{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}}, ""); status != http.StatusUpgradeRequired {
		t.Errorf("a WebSocket is answered with %d", status)
	}
	if len(calls) > 0 {
		t.Errorf("%d calls were forwarded", len(calls))
	}
}

// TestBroker_streams fails if an answer is buffered: each piece is sent only after the client has
// received the one before.
func TestBroker_streams(t *testing.T) {
	t.Parallel()
	next := make(chan struct{})
	to, _ := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 5 {
			fmt.Fprintf(w, "data: {\"n\":%d}\n\n", i)
			w.(http.Flusher).Flush()
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
		}
	})
	b := start(t, one(broker.Anthropic, "", to))
	r, _ := http.NewRequestWithContext(t.Context(), "POST", b.url+"/v1/messages", strings.NewReader("{}"))
	r.Header.Set("X-Api-Key", placeholder)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	in := bufio.NewReader(res.Body)
	for i := range 5 {
		line, err := in.ReadString('\n')
		if err != nil || line != fmt.Sprintf("data: {\"n\":%d}\n", i) {
			t.Fatalf("%q, %v", line, err)
		}
		_, _ = in.ReadString('\n')
		next <- struct{}{}
	}
}

func TestBroker_upstream_errors(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 401, 429, 500, 529} {
		to, _ := upstream(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "17")
			w.WriteHeader(status)
			fmt.Fprint(w, `{"error":"as it is"}`)
		})
		b := start(t, one(broker.Anthropic, "", to))
		got, body := call(t, "POST", b.url+"/v1/messages", head("X-Api-Key", placeholder), "{}")
		if got != status || body != `{"error":"as it is"}` {
			t.Errorf("%d became %d %s", status, got, body)
		}
		records, _, err := broker.ReadRecords(b.file, 0)
		if err != nil || (len(records) == 1) != (status == 429) {
			t.Errorf("%d: records %+v, %v", status, records, err)
		}
		if status == 429 && (!records[0].Limited() || records[0].Until.Before(time.Now()) || records[0].Limits["retry-after"] != "17") {
			t.Errorf("record %+v", records[0])
		}
	}
	t.Run("unreachable", func(t *testing.T) {
		t.Parallel()
		gone := httptest.NewServer(nil)
		gone.Close()
		b := start(t, one(broker.Anthropic, "", gone.URL))
		status, body := call(t, "POST", b.url+"/v1/messages", head("X-Api-Key", placeholder), "{}")
		if status != http.StatusBadGateway || !strings.Contains(body, "could not be reached") || strings.Contains(body, secret) {
			t.Errorf("%d %s", status, body)
		}
	})
	t.Run("cut", func(t *testing.T) {
		t.Parallel()
		to, _ := upstream(t, func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "half")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		})
		b := start(t, one(broker.Anthropic, "", to))
		r, _ := http.NewRequestWithContext(t.Context(), "POST", b.url+"/v1/messages", strings.NewReader("{}"))
		r.Header.Set("X-Api-Key", placeholder)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if body, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("a cut answer looks complete: %q", body)
		}
	})
}

func TestBroker_extra_certificates(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(ok))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	c := one(broker.Anthropic, "", server.URL)
	b := start(t, c)
	if status, body := call(t, "POST", b.url+"/v1/messages", head("X-Api-Key", placeholder), "{}"); status != http.StatusBadGateway {
		t.Errorf("an unknown certificate is accepted: %d %s", status, body)
	}
	c.ExtraCA = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(c.ExtraCA, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	b = start(t, c)
	if status, body := call(t, "POST", b.url+"/v1/messages", head("X-Api-Key", placeholder), "{}"); status != 200 {
		t.Errorf("%d %s", status, body)
	}
}

func TestBroker_close_ends_a_hanging_call(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	to, _ := upstream(t, func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	})
	b := start(t, one(broker.Anthropic, "", to))
	failed := make(chan error, 1)
	go func() {
		r, _ := http.NewRequest("POST", b.url+"/v1/messages", strings.NewReader("{}"))
		r.Header.Set("X-Api-Key", placeholder)
		res, err := http.DefaultClient.Do(r)
		if err == nil {
			res.Body.Close()
		}
		failed <- err
	}()
	<-arrived
	b.Close()
	if err := <-failed; err == nil {
		t.Error("the call was answered")
	}
}

func TestReadRecords_incomplete_file(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "broker")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if records, at, err := broker.ReadRecords(file, 0); len(records) != 0 || at != 0 || err != nil {
		t.Errorf("a missing file: %v %d %v", records, at, err)
	}
	whole := `{"vendor":"openai","status":200}` + "\ndamaged\n"
	write(whole + `{"vendor":"op`)
	records, at, err := broker.ReadRecords(file, 0)
	if err != nil || len(records) != 1 || at != int64(len(whole)) {
		t.Fatalf("%v %d %v", records, at, err)
	}
	write(whole + `{"vendor":"gemini"}` + "\n")
	if records, _, err = broker.ReadRecords(file, at); err != nil || len(records) != 1 || records[0].Vendor != "gemini" {
		t.Errorf("%v %v", records, err)
	}
}
