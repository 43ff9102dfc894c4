package api_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/redact"
)

func TestSecurityHeaders(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	for _, path := range []string{"/", "/login", "/docs", "/api/v1/triggers", "/nothing", "/health/liveness"} {
		a := g.admin("GET", path, "")
		csp := a.header.Get("Content-Security-Policy")
		if strings.Contains(csp, "unsafe") || !strings.Contains(csp, "frame-ancestors 'none'") || !strings.Contains(csp, "default-src 'none'") {
			t.Errorf("%s: policy %q", path, csp)
		}
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin", "Strict-Transport-Security": "",
		} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
	}
}

func TestRequestID(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	if a := g.admin("GET", "/api/v1/info", "", with("X-Request-ID", "trace-42.a_b:c")); a.header.Get("X-Request-ID") != "trace-42.a_b:c" {
		t.Errorf("id %q", a.header.Get("X-Request-ID"))
	}
	if !strings.Contains(g.access.String(), "trace-42.a_b:c") {
		t.Error("the access log has no request id")
	}
	for _, bad := range []string{"", "has space", `quote"`, strings.Repeat("x", 65), "ä"} {
		a := g.admin("GET", "/api/v1/info", "", with("X-Request-ID", bad))
		if !strings.HasPrefix(a.header.Get("X-Request-ID"), "req-") {
			t.Errorf("%q became %q", bad, a.header.Get("X-Request-ID"))
		}
	}
}

func TestAllowedHosts(t *testing.T) {
	t.Parallel()
	g := start(t, settings{env: []string{"AGENTED_ALLOWED_HOSTS=agented.example.org"}})
	for _, name := range []string{"127.0.0.1", "10.0.0.5:20000", "[::1]:20000", "[fe80::1]", "localhost", "LOCALHOST:1", "x.localhost", "agented.example.org", "AGENTED.example.org.:443"} {
		g.admin("GET", "/api/v1/info", "", host(name)).want(200)
	}
	for _, name := range []string{"evil.example", "agented.example.org.evil.example", "localhost.evil.example", "127.0.0.1.nip.example", "xagented.example.org", "evil.example:20000"} {
		p := g.admin("GET", "/api/v1/info", "", host(name)).problem(421)
		if !strings.Contains(p.Detail, "AGENTED_ALLOWED_HOSTS") || strings.Contains(p.Detail, name) {
			t.Errorf("%s: %s", name, p.Detail)
		}
		g.do(agented.RoleNone, "GET", "/", "", host(name)).problem(421)
		g.do(agented.RoleNone, "GET", "/health/liveness", "", host(name)).want(200)
		g.do(agented.RoleNone, "GET", "/hooks/x", "", host(name)).problem(405)
		g.do(agented.RoleNone, "GET", "/hooks/..%2fapi/v1/info", "", host(name)).problem(421)
	}
	// The bind host is accepted too.
	b := start(t, settings{env: []string{"AGENTED_BIND=build-box:20000"}})
	b.admin("GET", "/api/v1/info", "", host("build-box:20000")).want(200)
}

func TestCrossOriginProtection(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	g.addUser("ada", agented.RoleAdmin)
	c := g.loggedIn("ada")
	body := hello
	for name, f := range map[string]change{
		"Sec-Fetch-Site": with("Sec-Fetch-Site", "cross-site"),
		"same site":      with("Sec-Fetch-Site", "same-site"),
		"Origin":         with("Origin", "https://evil.example"),
		"null origin":    with("Origin", "null"),
	} {
		p := g.send(c, "POST", "/api/v1/triggers", body, f).problem(403)
		if p.Kind != agented.Denied || !strings.Contains(p.Detail, "another site") {
			t.Errorf("%s: %+v", name, p)
		}
		g.form(c, "/logout", nil, f).want(403)
		g.send(c, "GET", "/api/v1/triggers", "", f).want(200) // the page cannot read it, and it changes nothing
	}
	g.send(c, "POST", "/api/v1/triggers", body, with("Sec-Fetch-Site", "same-origin")).want(201)
	// Browsers do not send keys.
	id := g.trigger(`{"name":"k","backend":"command","command":["x"]}`)
	g.admin("POST", "/api/v1/triggers/"+id+"/run", "", with("Sec-Fetch-Site", "cross-site"), with("Origin", "https://evil.example")).want(202)
	// A wrong key does not fall back to the session of a request that the check
	// accepted.
	g.send(c, "POST", "/api/v1/triggers/"+id+"/run", "", with("Sec-Fetch-Site", "cross-site"), with("X-API-Key", "wrong")).problem(401)
	g.send(c, "POST", "/api/v1/triggers/"+id+"/run", "", with("Sec-Fetch-Site", "cross-site"), with("Authorization", "Bearer")).problem(401)
}

func TestCORS_unknown_origin(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	a := g.do(agented.RoleNone, "OPTIONS", "/api/v1/triggers", "", with("Origin", "https://dash.example"), with("Access-Control-Request-Method", "POST"))
	if a.status < 400 || a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("preflight: %d %v", a.status, a.header)
	}
	a = g.admin("GET", "/api/v1/triggers", "", with("Origin", "https://dash.example")).want(200)
	if a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("headers %v", a.header)
	}
}

func TestCORS_configured_origins(t *testing.T) {
	t.Parallel()
	g := start(t, settings{env: []string{"CORS_ALLOWED_ORIGINS=https://dash.example,http://10.0.0.7:3000"}})
	g.addUser("ada", agented.RoleAdmin)
	from := with("Origin", "https://dash.example")

	pre := g.do(agented.RoleNone, "OPTIONS", "/api/v1/triggers", "", from,
		with("Access-Control-Request-Method", "PATCH"), with("Access-Control-Request-Headers", "authorization,content-type,idempotency-key"))
	if pre.status/100 != 2 || pre.header.Get("Access-Control-Allow-Origin") != "https://dash.example" ||
		pre.header.Get("Access-Control-Allow-Credentials") != "true" || !strings.Contains(pre.header.Get("Access-Control-Allow-Methods"), "PATCH") ||
		!strings.Contains(strings.Join(pre.header.Values("Vary"), ","), "Origin") {
		t.Errorf("preflight: %d %v", pre.status, pre.header)
	}
	bad := g.do(agented.RoleNone, "OPTIONS", "/api/v1/triggers", "", with("Origin", "https://evil.example"), with("Access-Control-Request-Method", "PATCH"))
	if bad.header.Get("Access-Control-Allow-Origin") != "" || !strings.Contains(strings.Join(bad.header.Values("Vary"), ","), "Origin") {
		t.Errorf("refused preflight: %v", bad.header)
	}

	c := g.loggedIn("ada")
	a := g.send(c, "GET", "/api/v1/triggers", "", from).want(200)
	if a.header.Get("Access-Control-Allow-Origin") != "https://dash.example" || a.header.Get("Access-Control-Allow-Credentials") != "true" ||
		!strings.Contains(strings.Join(a.header.Values("Vary"), ","), "Origin") || !strings.Contains(strings.ToLower(a.header.Get("Access-Control-Expose-Headers")), "x-request-id") {
		t.Errorf("headers %v", a.header)
	}
	g.send(c, "POST", "/api/v1/triggers", hello, from, with("Sec-Fetch-Site", "cross-site")).want(201)
	g.send(c, "POST", "/api/v1/triggers", hello, with("Origin", "https://evil.example"), with("Sec-Fetch-Site", "cross-site")).problem(403)
	// The rejected page can read the error.
	if p := g.do(agented.RoleNone, "GET", "/api/v1/triggers", "", from); p.status != 401 || p.header.Get("Access-Control-Allow-Origin") == "" {
		t.Errorf("401: %v", p.header)
	}
	// Pages are never shared.
	if p := g.do(agented.RoleNone, "GET", "/login", "", from); p.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("login page: %v", p.header)
	}

	// An event stream of another origin.
	r, _ := http.NewRequestWithContext(t.Context(), "GET", g.http.URL+"/api/v1/executions/"+g.execution()+"/stream", nil)
	r.Header.Set("Origin", "http://10.0.0.7:3000")
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("Access-Control-Allow-Origin") != "http://10.0.0.7:3000" || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		t.Errorf("stream: %d %v", resp.StatusCode, resp.Header)
	}
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil {
		t.Errorf("stream: %q %v", line, err)
	}
}

func TestReload_hosts_and_origins(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	g.admin("GET", "/api/v1/info", "", host("new.example")).problem(421)
	if err := g.api.Reload(load(t, g.layout.Root, []string{"AGENTED_ALLOWED_HOSTS=new.example", "CORS_ALLOWED_ORIGINS=https://dash.example"})); err != nil {
		t.Fatal(err)
	}
	a := g.admin("GET", "/api/v1/info", "", host("new.example"), with("Origin", "https://dash.example")).want(200)
	if a.header.Get("Access-Control-Allow-Origin") == "" {
		t.Error("the new origin is refused")
	}
	broken := *g.config
	broken.CORSAllowedOrigins = []string{"https://*.com"}
	if err := g.api.Reload(&broken); err == nil || !strings.Contains(err.Error(), "CORS_ALLOWED_ORIGINS") {
		t.Errorf("a bad origin: %v", err)
	}
	g.admin("GET", "/api/v1/info", "", host("new.example")).want(200)
}

// until waits for a condition, with a time limit.
func until(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("waited for too long")
		}
	}
}

// trouble is a dispatcher that fails as configured.
type trouble struct {
	*work
	fire func(ctx context.Context) error
}

func (d *trouble) Fire(ctx context.Context, f dispatch.Firing) (*agented.Execution, bool, error) {
	if d.fire != nil {
		return nil, false, d.fire(ctx)
	}
	return d.work.Fire(ctx, f)
}

func TestProblem_hides_cause(t *testing.T) {
	t.Parallel()
	d := &trouble{}
	g := start(t, settings{options: func(o *api.Options) { d.work = o.Dispatch.(*work); o.Dispatch = d }, env: []string{"AGENTED_REQUEST_TIMEOUT=3s"}})
	at := "/api/v1/triggers/" + g.trigger(hello) + "/run"
	for _, c := range []struct {
		name   string
		fire   func(context.Context) error
		status int
		kind   agented.Kind
		logged string
	}{
		{"panic", func(context.Context) error { panic("the sky fell") }, 500, agented.Internal, "the sky fell"},
		{"bare error", func(context.Context) error { return errors.New("disk /dev/sdx on fire") }, 500, agented.Internal, "disk /dev/sdx on fire"},
		{"cause", func(context.Context) error {
			return agented.Errorf(agented.Unavailable, "try later").Because(errors.New("inner reason"))
		}, 503, agented.Unavailable, "inner reason"},
		{"too slow", func(ctx context.Context) error { <-ctx.Done(); return fmt.Errorf("wait: %w", ctx.Err()) }, 503, agented.Unavailable, "deadline"},
		{"rate", func(context.Context) error { return agented.Errorf(agented.RateLimited, "slow down") }, 429, agented.RateLimited, ""},
	} {
		d.fire = c.fire
		a := g.admin("POST", at, "")
		p := a.problem(c.status)
		if p.Kind != c.kind || c.logged != "" && strings.Contains(a.body, c.logged) {
			t.Errorf("%s: %s", c.name, a.body)
		}
		if c.status != 500 && a.header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", c.name)
		}
		if !strings.Contains(g.log.String(), c.logged) || !strings.Contains(g.log.String(), p.RequestID) {
			t.Errorf("%s: the log does not have the cause and the request id", c.name)
		}
		if n := strings.Count(g.log.String(), p.RequestID); n > 1 {
			t.Errorf("%s: logged %d times", c.name, n)
		}
	}
}

func TestRequestTimeout_exempts_streams(t *testing.T) {
	t.Parallel()
	g := start(t, settings{env: []string{"AGENTED_REQUEST_TIMEOUT=2s"}})
	id := g.execution()
	r, _ := http.NewRequestWithContext(t.Context(), "GET", g.http.URL+"/api/v1/executions/"+id+"/stream", nil)
	r.Header.Set("X-API-Key", staticKey)
	begun := time.Now()
	resp, err := g.client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	for in.Scan() && !strings.HasPrefix(in.Text(), "data:") {
	}
	// Ends the execution once the timeout of an ordinary request is over.
	answered := make(chan struct{})
	time.AfterFunc(2500*time.Millisecond, func() {
		defer close(answered)
		g.admin("POST", "/api/v1/executions/"+id+"/cancel", "")
	})
	complete := false
	for in.Scan() {
		complete = complete || strings.Contains(in.Text(), "event: complete")
	}
	if !complete || time.Since(begun) < 2*time.Second {
		t.Errorf("the stream ended after %v, complete=%v, %v", time.Since(begun), complete, in.Err())
	}
	<-answered // its response may arrive after the end of the stream
	until(t, func() bool { return strings.Contains(g.access.String(), "/stream HTTP/1.1") })
}

func TestAccessLog(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	g.masker.Store(redact.New([]string{"known-secret-value"}))
	g.admin("GET", "/api/v1/triggers?q=plain", "").want(200)
	g.do(agented.RoleNone, "GET", "/setup?token=one-time-token-value&x=1", "")
	g.do(agented.RoleNone, "GET", "/login?API-Key=abcdefgh&access_token=zyxwvut", "")
	g.do(agented.RoleNone, "GET", "/nothing/known-secret-value", "")
	g.do(agented.RoleNone, "GET", "/evil%0Aline%22", "")
	log := g.access.String()
	for _, bad := range []string{"one-time-token-value", "abcdefgh", "zyxwvut", "known-secret-value", g.key(agented.RoleAdmin)} {
		if strings.Contains(log, bad) {
			t.Errorf("the access log has %q:\n%s", bad, log)
		}
	}
	line := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z 127\.0\.0\.1 "[A-Z]+ /\S* HTTP/1\.1" \d{3} \d+ \d+\.\d{3}ms (-|"[^"]+") req-\w+$`)
	rows := strings.Split(strings.TrimSpace(log), "\n")
	if len(rows) != 5 {
		t.Errorf("%d lines for 5 requests:\n%s", len(rows), log)
	}
	for _, row := range rows {
		if !line.MatchString(row) {
			t.Errorf("line %q", row)
		}
	}
	if !strings.Contains(rows[0], `q=plain`) || !strings.Contains(rows[0], `"key admin key"`) || !strings.Contains(rows[1], "token=***&x=1") {
		t.Errorf("lines:\n%s", log)
	}
}
