package main_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestFigures measures the program from outside and prints the figures; it cannot fail because of
// them. It runs with AGENTED_FIGURES=1: make figures.
func TestFigures(t *testing.T) {
	if os.Getenv("AGENTED_FIGURES") == "" {
		t.Skip("measures, and is for an idle machine: set AGENTED_FIGURES=1, or make figures")
	}
	s := newServer(t, "AGENTED_MAX_CONCURRENT=20")
	dir := filepath.Join(s.dir, "cwd")

	t.Run("memory at rest", func(t *testing.T) {
		time.Sleep(3 * time.Second) // wait until the start-up has settled
		cpu := s.cpu()
		time.Sleep(10 * time.Second)
		t.Logf("server at rest: RSS %s; %.1f ms of CPU in 10 s", s.status("VmRSS"), (s.cpu()-cpu)*1000)
	})
	t.Run("run to first byte", func(t *testing.T) {
		// The process writes the time at which it prints its first byte.
		id := s.trigger(map[string]any{"name": "first byte", "backend": "command", "max_concurrent": 0, "command": []string{"date", "+%s%N"}})
		var took []time.Duration
		for range 100 {
			began := time.Now()
			e := s.await(s.fire(id))
			ns, err := strconv.ParseInt(strings.TrimSpace(string(s.logText(e.ID))), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			took = append(took, time.Unix(0, ns).Sub(began))
		}
		t.Logf("POST …/run to the process's first byte: %s", quantiles(took))
	})
	t.Run("printed to read", func(t *testing.T) {
		id := s.fire(s.trigger(sh("clock", `i=0; while [ $i -lt 400 ]; do date +%s%N; sleep 0.02; i=$((i+1)); done`, nil)))
		var took []time.Duration
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		s.each(ctx, id, func(l logLine) {
			if ns, err := strconv.ParseInt(l.Content, 10, 64); err == nil {
				took = append(took, time.Since(time.Unix(0, ns)))
			}
		})
		t.Logf("line printed to line read: %s", quantiles(took))
	})
	t.Run("shim", func(t *testing.T) {
		id := s.trigger(sh("shim", `echo up; while [ ! -e stop ]; do sleep 0.1; done`, map[string]any{"working_dir": dir, "max_concurrent": 0}))
		var ids []string
		for range 20 {
			ids = append(ids, s.fire(id))
		}
		for _, id := range ids {
			s.waitFor("it to run", func() bool { return len(s.lines(id)) > 0 })
		}
		var pss []int
		for _, pid := range shims(s.data()) {
			if kb, err := strconv.Atoi(strings.TrimSuffix(smaps(pid, "Pss"), " kB")); err == nil {
				pss = append(pss, kb)
			}
		}
		slices.Sort(pss)
		if len(pss) > 0 {
			t.Logf("%d shims at once: PSS %d kB in the median, %d kB at most; server RSS %s", len(pss), pss[len(pss)/2], pss[len(pss)-1], s.status("VmRSS"))
		}
		os.WriteFile(filepath.Join(dir, "stop"), nil, 0o600)
		for _, id := range ids {
			s.await(id)
		}
	})
	t.Run("burst", func(t *testing.T) {
		const n = 1_000_000
		id := s.trigger(map[string]any{"name": "burst", "backend": "command", "timeout_seconds": 300, "command": []string{"seq", "-f", "%.0f this is one line of a burst of very many lines that a process prints as fast as it can", strconv.Itoa(n)}})
		for range 3 {
			began := time.Now()
			e := s.await(s.fire(id))
			took := time.Since(began)
			b := s.logText(e.ID)
			lines := strings.Count(string(b), "\n")
			t.Logf("burst: %d of %d lines kept, %d MB in %v: %.0f lines/s; server RSS %s", lines, n, len(b)>>20,
				took.Round(time.Millisecond), float64(lines)/took.Seconds(), s.status("VmRSS"))
		}
	})
	t.Run("throughput", func(t *testing.T) {
		id := s.trigger(map[string]any{"name": "true", "backend": "command", "max_concurrent": 0, "command": []string{"true"}})
		began := time.Now()
		var ids []string
		for range 200 {
			ids = append(ids, s.fire(id))
		}
		for _, id := range ids {
			s.await(id)
		}
		t.Logf("200 executions of true: %.0f a second", 200/time.Since(began).Seconds())
	})
	t.Run("restart", func(t *testing.T) {
		var took []time.Duration
		for range 5 {
			s.kill()
			began := time.Now()
			s.start()
			took = append(took, time.Since(began))
		}
		t.Logf("kill -9 to ready (with the poll's 10 ms): %s", quantiles(took))
	})
	if info, err := os.Stat(binary); err == nil {
		t.Logf("binary, not stripped: %.1f MB", float64(info.Size())/1e6)
	}
}

// each follows an execution and calls handle for each line.
func (s *server) each(ctx context.Context, id string, handle func(logLine)) {
	r := &reader{onLine: handle}
	s.followWith(ctx, id, func() {}, r)
}

// status reads one line of /proc/PID/status of the server.
func (s *server) status(field string) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid()))
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return "?"
}

// cpu returns the server's CPU time in seconds.
func (s *server) cpu() float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid()))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	return (user + system) / 100
}

func (s *server) pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd.Process.Pid
}

func smaps(pid int, field string) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return "?"
}

func quantiles(d []time.Duration) string {
	if len(d) == 0 {
		return "nothing measured"
	}
	slices.Sort(d)
	at := func(q float64) time.Duration { return d[int(q*float64(len(d)-1))].Round(10 * time.Microsecond) }
	return fmt.Sprintf("p50 %v, p90 %v, p99 %v, max %v of %d", at(.5), at(.9), at(.99), at(1), len(d))
}
