package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/conversation"
	"github.com/agented/agented/internal/costs"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/hub"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/scheduler"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/store/storetest"
)

const staticKey = "static-key-0123456789abcdef"

// work is the real dispatcher without its loops: executions stay pending unless
// a test ends them.
type work struct {
	*dispatch.Dispatcher
	sick atomic.Pointer[error]
}

func (w *work) Healthy() error {
	if err := w.sick.Load(); err != nil {
		return *err
	}
	return nil
}

// lines is a writer that tests can read concurrently.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// rig is a server on a real socket with a real store.
type rig struct {
	t      *testing.T
	db     *store.DB
	work   *work
	hub    *hub.Hub
	layout agented.Layout
	api    *api.Server
	http   *httptest.Server
	log    lines
	access lines
	keys   map[agented.Role]string
	masker atomic.Pointer[redact.Masker]
	now    atomic.Int64 // nanoseconds added to the clock
	config *config.Config
}

type settings struct {
	env      []string // NAME=value
	options  func(*api.Options)
	tls      bool
	wrapHTTP func(*http.Server)
}

func start(t *testing.T, set settings) *rig {
	t.Helper()
	ctx := context.Background()
	g := &rig{t: t, layout: agented.Layout{Root: t.TempDir()}, keys: map[agented.Role]string{}}
	logger := slog.New(slog.NewTextHandler(&g.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	path := filepath.Join(g.layout.Root, "agented.db")
	g.db = storetest.Open(t, path, store.Options{Log: logger})
	g.config = load(t, g.layout.Root, set.env)
	key, err := secret.Load(secret.Options{Path: g.layout.SecretKey()})
	if err != nil {
		t.Fatal(err)
	}
	g.masker.Store(redact.New(g.config.Secrets()))
	g.hub = hub.New(hub.Options{
		Layout: g.layout, Encode: api.EncodeExecution, Changed: g.db.ChangedSince, LastEvent: g.db.LastEventSeq, Log: logger,
		Masker: func() *redact.Masker { return g.masker.Load() },
	})
	run, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.hub.Run(run) }()
	t.Cleanup(func() { stop(); <-done })
	g.db.OnChange(g.hub.Publish)
	g.work = &work{Dispatcher: dispatch.New(dispatch.Options{DB: g.db, Layout: g.layout, Node: "node-test", Limits: dispatch.Limits{MaxConcurrent: 2, LeaseTTL: time.Minute}, Log: logger})}
	o := api.Options{
		Budgets: costs.New(costs.Options{DB: g.db, Layout: g.layout, Log: logger}),
		Turns:   conversation.New(conversation.Options{DB: g.db, Layout: g.layout, Executions: g.work, Log: logger}),
		DB:      g.db, Dispatch: g.work, Scheduler: scheduler.New(scheduler.Options{DB: g.db, Dispatcher: g.work, Log: logger}), Hub: g.hub, Layout: g.layout, Config: g.config, Key: key, Masker: &g.masker,
		Log: logger, AccessLog: &g.access, Version: "1.2.3-test", Node: "node-test",
		Passwords: secret.NewPasswords(secret.Cost{MemoryKiB: 64, Passes: 1, Threads: 1}, 4),
		Now:       func() time.Time { return time.Now().Add(time.Duration(g.now.Load())) },
	}
	if set.options != nil {
		set.options(&o)
	}
	g.api, err = api.New(o)
	if err != nil {
		t.Fatal(err)
	}
	g.http = httptest.NewUnstartedServer(nil)
	g.http.Config = g.api.HTTP()
	if set.wrapHTTP != nil {
		set.wrapHTTP(g.http.Config)
	}
	if set.tls {
		g.http.StartTLS()
	} else {
		g.http.Start()
	}
	t.Cleanup(func() { g.hub.Drain(); g.http.CloseClientConnections(); g.http.Close() })
	return g
}

func load(t *testing.T, dir string, env []string) *config.Config {
	t.Helper()
	env = append(env, "HOME="+dir, "PATH=/bin", "AGENTED_DATA_DIR="+dir, "AGENTED_BIND=127.0.0.1:0", "AGENTED_API_KEY="+staticKey)
	seen := map[string]bool{}
	env = slices.DeleteFunc(slices.Clone(env), func(kv string) bool { // the test's own variables take precedence
		name, _, _ := strings.Cut(kv, "=")
		was := seen[name]
		seen[name] = true
		return was
	})
	c, err := config.Load(config.Options{Environ: func() []string { return env }, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// key creates an API key of a role, once.
func (g *rig) key(role agented.Role) string {
	g.t.Helper()
	if role == agented.RoleNone {
		return ""
	}
	if g.keys[role] == "" {
		plain, prefix, _ := secret.NewAPIKey()
		hash := sha(plain)
		if err := g.db.CreateKey(context.Background(), &store.Key{Name: string(role) + " key", Prefix: prefix, Role: role}, hash, "test"); err != nil {
			g.t.Fatal(err)
		}
		g.keys[role] = plain
	}
	return g.keys[role]
}

// answer is a response.
type answer struct {
	t      *testing.T
	status int
	header http.Header
	body   string
}

func (a answer) json(into any) answer {
	a.t.Helper()
	if err := json.Unmarshal([]byte(a.body), into); err != nil {
		a.t.Fatalf("answer %d is not what was expected: %v\n%s", a.status, err, a.body)
	}
	return a
}

func (a answer) want(status int) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("status %d, want %d\n%s", a.status, status, a.body)
	}
	return a
}

// problem decodes a problem and checks its form.
func (a answer) problem(status int) rest.Problem {
	a.t.Helper()
	a.want(status)
	if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
		a.t.Fatalf("a problem is of type %q\n%s", ct, a.body)
	}
	var p rest.Problem
	a.json(&p)
	if p.Status != status || p.Title == "" || p.Type == "" || p.Detail == "" || p.Kind == "" || p.RequestID == "" {
		a.t.Fatalf("incomplete problem: %s", a.body)
	}
	if p.RequestID != a.header.Get("X-Request-ID") {
		a.t.Fatalf("request id %q, header %q", p.RequestID, a.header.Get("X-Request-ID"))
	}
	return p
}

type change func(*http.Request)

func with(name, value string) change { return func(r *http.Request) { r.Header.Set(name, value) } }
func host(name string) change        { return func(r *http.Request) { r.Host = name } }

// do sends a request with a role's key.
func (g *rig) do(role agented.Role, method, path, body string, changes ...change) answer {
	g.t.Helper()
	if key := g.key(role); key != "" {
		changes = append([]change{with("Authorization", "Bearer "+key)}, changes...)
	}
	return g.send(g.client(), method, path, body, changes...)
}

func (g *rig) admin(method, path, body string, changes ...change) answer {
	g.t.Helper()
	return g.do(agented.RoleAdmin, method, path, body, changes...)
}

func (g *rig) send(c *http.Client, method, path, body string, changes ...change) answer {
	g.t.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	r, err := http.NewRequest(method, g.http.URL+path, in)
	if err != nil {
		g.t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, f := range changes {
		f(r)
	}
	resp, err := c.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return answer{t: g.t, status: resp.StatusCode, header: resp.Header, body: string(text)}
}

// client follows no redirects.
func (g *rig) client() *http.Client {
	c := *g.http.Client()
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}

// browser is a client with cookies.
func (g *rig) browser() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		g.t.Fatal(err)
	}
	c := g.client()
	c.Jar = jar
	return c
}

const password = "correct horse battery"

// addUser creates a user of a role with the password above.
func (g *rig) addUser(name string, role agented.Role) {
	g.t.Helper()
	if n, err := g.db.UserCount(context.Background()); err != nil || n == 0 && role != agented.RoleAdmin {
		g.addUser("first", agented.RoleAdmin)
	}
	g.admin("POST", "/api/v1/auth/users", `{"name":"`+name+`","password":"`+password+`","role":"`+string(role)+`"}`).want(201)
}

// loggedIn returns a browser of a logged-in user.
func (g *rig) loggedIn(name string) *http.Client {
	g.t.Helper()
	c := g.browser()
	g.send(c, "POST", "/api/v1/auth/login", `{"name":"`+name+`","password":"`+password+`"}`).want(200)
	return c
}

const hello = `{"name":"hello","backend":"command","command":["sh","-c","echo hi"]}`

// trigger creates a trigger and returns its id.
func (g *rig) trigger(body string) string {
	g.t.Helper()
	var v api.TriggerView
	g.admin("POST", "/api/v1/triggers", body).want(201).json(&v)
	return string(v.ID)
}

// execution runs a new trigger and returns the execution's id.
func (g *rig) execution() string {
	g.t.Helper()
	id := g.trigger(`{"name":"t` + agented.NewID("x", time.Now()) + `","backend":"command","command":["true"]}`)
	var a api.Accepted
	g.admin("POST", "/api/v1/triggers/"+id+"/run", "").want(202).json(&a)
	return string(a.ExecutionID)
}
