package main_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agented/agented/internal/testrun"
)

// TestSoakHoldsStreams holds an idle and a busy stream for more than five minutes, directly and
// through nginx with its defaults, and checks that there is no disconnect and no gap. It runs
// with AGENTED_SOAK=1.
func TestSoakHoldsStreams(t *testing.T) {
	if os.Getenv("AGENTED_SOAK") == "" {
		t.Skip("takes more than five minutes: set AGENTED_SOAK=1, or make soak")
	}
	length := 5*time.Minute + 30*time.Second
	if d, err := time.ParseDuration(os.Getenv("AGENTED_SOAK")); err == nil {
		length = d
	}
	s := newServer(t, "AGENTED_ALLOWED_HOSTS=soak.example")
	bases := map[string]string{"direct": "http://" + s.addr}
	if path, err := exec.LookPath("nginx"); err == nil {
		bases["nginx"] = startNginx(t, path, s)
	} else {
		t.Log("nginx is not installed: the streams are held without it")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const rate = 20
	lines := int(length.Seconds()) * rate
	busy := s.fire(s.trigger(map[string]any{
		"name": "busy", "backend": "command", "command": []string{self},
		"env": map[string]any{"COUNTER_LINES": strconv.Itoa(lines), "COUNTER_RATE": strconv.Itoa(rate)},
	}))
	idle := s.fire(s.trigger(sh("idle", fmt.Sprintf("echo begin; sleep %d; echo end", int(length.Seconds())), nil)))

	ctx, cancel := context.WithTimeout(context.Background(), length+3*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for name, base := range bases {
		wg.Go(func() { hold(ctx, t, name+" busy", base, busy, lines) })
		wg.Go(func() { hold(ctx, t, name+" idle", base, idle, 2) })
	}
	wg.Wait()
}

// hold reads one stream over one connection, which must not end before the execution is complete,
// and on which no more than 20 seconds may pass without data.
func hold(ctx context.Context, t *testing.T, name, base, id string, lines int) {
	began := time.Now()
	req, err := http.NewRequestWithContext(ctx, "GET", base+"/api/v1/executions/"+id+"/stream?after=0", nil)
	if err != nil {
		t.Error(err)
		return
	}
	req.Header.Set("X-API-Key", testKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	defer resp.Body.Close()
	r, last := &reader{}, ""
	gaps := &gapReader{in: resp.Body, last: time.Now()}
	r.read(bufio.NewReader(gaps), &last)
	if r.complete != "success" {
		t.Errorf("%s: the stream was cut after %v, at line %d", name, time.Since(began).Round(time.Second), len(r.seqs))
	}
	var out int
	for i, seq := range r.seqs {
		if seq != int64(i+1) {
			t.Errorf("%s: position %d has seq %d", name, i+1, seq)
			break
		}
	}
	out = len(r.contents)
	if out != lines {
		t.Errorf("%s: %d lines, want %d", name, out, lines)
	}
	if gaps.longest > 20*time.Second {
		t.Errorf("%s: nothing came for %v", name, gaps.longest)
	}
	t.Logf("%s: %d lines over %v in one connection, longest silence %v", name, out,
		time.Since(began).Round(time.Second), gaps.longest.Round(time.Millisecond))
}

// gapReader records the longest time without data.
type gapReader struct {
	in      io.Reader
	last    time.Time
	longest time.Duration
}

func (g *gapReader) Read(p []byte) (int, error) {
	n, err := g.in.Read(p)
	now := time.Now()
	g.longest, g.last = max(g.longest, now.Sub(g.last)), now
	return n, err
}

// startNginx runs nginx in front of the server, with no settings for streams.
func startNginx(t *testing.T, path string, s *server) string {
	t.Helper()
	dir := t.TempDir()
	addr := testrun.FreeAddress(t)
	conf := fmt.Sprintf(`daemon off; error_log %[1]s/error.log; pid %[1]s/pid; master_process off;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  server { listen %[2]s; location / { proxy_pass http://%[3]s; proxy_http_version 1.1; proxy_set_header Connection ""; } }
}`, dir, addr, s.addr)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-c", file, "-p", dir, "-e", filepath.Join(dir, "error.log"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	s.waitFor("nginx", func() bool {
		resp, err := http.Get("http://" + addr + "/health/liveness")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	if v, err := exec.Command(path, "-v").CombinedOutput(); err == nil {
		t.Log(strings.TrimSpace(string(v)))
	}
	return "http://" + addr
}
