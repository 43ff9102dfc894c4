package api_test

import (
	"bufio"
	"encoding/json"
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/api/sse"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/web"
)

func (g *rig) overview(role agented.Role, query string) api.Overview {
	g.t.Helper()
	var o api.Overview
	g.do(role, "GET", "/api/v1/overview"+query, "").want(200).json(&o)
	return o
}

func TestOverview_new_server(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	a := g.do(agented.RoleViewer, "GET", "/api/v1/overview", "").want(200)
	for _, list := range []string{"running", "waiting", "failed", "next_runs"} {
		if !strings.Contains(a.body, `"`+list+`":[]`) {
			t.Errorf("%s is not an empty list: %s", list, a.body)
		}
	}
	o := g.overview(agented.RoleViewer, "")
	if len(o.Days) != 14 || o.Days[13].Date != time.Now().UTC().Format(time.DateOnly) {
		t.Errorf("days: %+v", o.Days)
	}
	if len(o.Health.CLIs) != 4 || o.Health.DatabaseBytes == 0 || o.Health.DiskFreeBytes == nil {
		t.Errorf("health: %+v", o.Health)
	}
	if n := len(g.overview(agented.RoleViewer, "?days=1&tz=Asia/Tokyo").Days); n != 1 {
		t.Errorf("%d days", n)
	}
	for _, bad := range []string{"?tz=Nowhere/Land", "?tz=Local", "?tz=../etc/passwd", "?days=0", "?days=61"} {
		g.do(agented.RoleViewer, "GET", "/api/v1/overview"+bad, "").problem(422)
	}
}

func TestOverview(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	ctx := t.Context()
	fire := func(name string) *agented.Execution {
		spec := agented.Spec{Backend: agented.BackendCommand, Command: []string{"true"}}.WithDefaults()
		e, _, err := g.work.Fire(ctx, dispatch.Firing{Spec: &spec, Name: name, Source: agented.SourceManual})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	lost, runs := g.printed(logged("first"), logged("  the last line  "), logged("")), fire("runs")
	now := time.Now().UTC()
	for range 2 {
		e, err := g.db.Claim(ctx, "node-test", 10, now, time.Minute)
		if err != nil || e == nil {
			t.Fatal(e, err)
		}
	}
	fire("waits")
	o := g.overview(agented.RoleViewer, "")
	if len(o.Running) != 2 || o.Running[0].ID != lost || o.Running[1].ID != runs.ID || len(o.Waiting) != 1 {
		t.Fatalf("%+v", o)
	}
	if l := o.Running[0].LastLine; l == nil || l.Content != "the last line" || l.Seq != 2 {
		t.Errorf("last line: %+v", l)
	}
	if o.Running[1].LastLine != nil {
		t.Errorf("last line: %+v", o.Running[1].LastLine)
	}
	if o.Waiting[0].Reason == "" {
		t.Error("nobody says why it waits")
	}
	if o.Days[13].Open != 3 || o.Counts.Running != 2 || o.Counts.Pending != 1 {
		t.Errorf("%+v %+v", o.Days[13], o.Counts)
	}
}

func TestEventsStream_last_lines(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	id := g.printed(logged("what goes on"))
	if e, err := g.db.Claim(t.Context(), "node-test", 10, time.Now().UTC(), time.Minute); err != nil || e == nil {
		t.Fatal(e, err)
	}
	r, err := http.NewRequestWithContext(t.Context(), "GET", g.http.URL+"/api/v1/events/stream?lines=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-API-Key", g.key(agented.RoleViewer))
	resp, err := g.client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	event := ""
	for in.Scan() {
		line := in.Text()
		if v, ok := strings.CutPrefix(line, "event: "); ok {
			event = v
		}
		if v, ok := strings.CutPrefix(line, "data: "); ok && event == "line" {
			var l sse.LastLine
			if err := json.Unmarshal([]byte(v), &l); err != nil {
				t.Fatal(err)
			}
			if l.Execution != id || l.Content != "what goes on" {
				t.Errorf("%+v", l)
			}
			return
		}
	}
	t.Fatalf("the stream ended: %v", in.Err())
}

func TestOverview_program_paths(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	for _, c := range g.overview(agented.RoleViewer, "").Health.CLIs {
		if c.Path != "" {
			t.Errorf("a viewer sees %s", c.Path)
		}
	}
}

func TestAssets_caching(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	files, built := web.Dist()
	index := g.send(g.client(), "GET", "/", "", with("Accept", "*/*")).want(200)
	if cc := index.header.Get("Cache-Control"); cc != "no-cache" {
		t.Errorf("the page is cached: %q", cc)
	}
	if tag := index.header.Get("ETag"); tag == "" {
		t.Error("the page has no tag")
	} else {
		g.send(g.client(), "GET", "/", "", with("If-None-Match", tag)).want(304)
	}
	if !built {
		return // only the stub page
	}
	to := g.send(g.client(), "GET", "/executions?status=failed", "", with("Accept", "text/html")).want(303)
	if to.header.Get("Location") != "/login?next=%2Fexecutions%3Fstatus%3Dfailed" {
		t.Errorf("sent to %q", to.header.Get("Location"))
	}
	g.do(agented.RoleViewer, "GET", "/executions", "", with("Accept", "text/html")).want(200)
	seen := 0
	_ = fs.WalkDir(files, "assets", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(name, ".br") || strings.HasSuffix(name, ".gz") {
			if strings.HasSuffix(name, ".gz") {
				g.send(g.client(), "GET", "/"+name, "").problem(404)
			}
			return err
		}
		seen++
		plain := g.send(g.client(), "GET", "/"+name, "", with("Accept-Encoding", "identity")).want(200)
		if cc := plain.header.Get("Cache-Control"); !strings.Contains(cc, "immutable") || plain.header.Get("Content-Encoding") != "" {
			t.Errorf("%s: %v", name, plain.header)
		}
		for _, coding := range []string{"br", "gzip"} {
			a := g.send(g.client(), "GET", "/"+name, "", with("Accept-Encoding", coding)).want(200)
			if got := a.header.Get("Content-Encoding"); got != "" && (got != coding || a.header.Get("Vary") == "" || len(a.body) >= len(plain.body) || a.header.Get("Content-Type") != plain.header.Get("Content-Type")) {
				t.Errorf("%s as %s: %v", name, coding, a.header)
			}
			refused := g.send(g.client(), "GET", "/"+name, "", with("Accept-Encoding", coding+";q=0")).want(200)
			if refused.header.Get("Content-Encoding") != "" {
				t.Errorf("%s was sent as %s, which was refused", name, coding)
			}
		}
		return nil
	})
	if seen == 0 {
		t.Error("there are no files")
	}
}
