//go:build linux

package main

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// intake measures signed webhooks, a quarter of them repeated.
func (b *bench) intake() error {
	const clients = 32
	for range b.rounds {
		for _, who := range b.who(gevent) {
			if err := b.intakeOf(who, clients); err != nil {
				b.trouble("intake: %s: %v", who, err)
			}
		}
	}
	return nil
}

func (b *bench) intakeOf(who string, clients int) error {
	s, err := (*server)(nil), error(nil)
	path := "/hook"
	if who == us {
		s, err = b.agented("AGENTED_MAX_CONCURRENT=1")
	} else {
		s, err = b.flask()
	}
	if err != nil {
		return err
	}
	defer s.Close()
	if who == us {
		// Admitted executions wait for the first one, because only the intake is measured.
		id, err := s.trigger(map[string]any{
			"name": "hooked", "backend": "command", "command": []string{"sleep", "600"},
			"webhooks": []any{map[string]any{"source": "webhook", "auth": map[string]any{"kind": "hmac"}, "secret": hookSecret}},
		})
		if err != nil {
			return err
		}
		path = "/hooks/" + id
	}
	request := func(client, i int) string {
		key := fmt.Sprintf("%d-%d", client, i-i%4/3) // every fourth repeats the third
		body := fmt.Sprintf(`{"event":{"level":"error","key":%q,"text":%q}}`, key, strings.Repeat("payload ", 60))
		mac := hmac.New(sha256.New, []byte(hookSecret))
		mac.Write([]byte(body))
		return post(path, body, "X-Webhook-Signature-256: sha256="+hex.EncodeToString(mac.Sum(nil))+"\r\n", "Idempotency-Key: "+key+"\r\n")
	}
	p := serverOnly(s)
	cpu := p.cpu()
	took, err := load(s.addr, clients, b.span, request)
	if err != nil {
		return err
	}
	used := p.cpu() - cpu
	b.add("intake.rate", who, float64(len(took))/b.span.Seconds())
	b.add("intake.cpu", who, float64(len(took))/max(0.01, used.Seconds()))
	b.add("intake.p99", who, quantile(took, .99))
	b.add("intake.p50", who, quantile(took, .5))
	b.note("intake %s: %.0f/s, p99 %.1f ms", who, float64(len(took))/b.span.Seconds(), quantile(took, .99))
	return nil
}

// overhead measures the cost of an execution without its program.
func (b *bench) overhead() error {
	const atOnce = 8
	for range b.rounds {
		for _, who := range b.who(gevent) {
			if err := b.overheadOf(who, atOnce); err != nil {
				b.trouble("executions of true: %s: %v", who, err)
			}
		}
	}
	return nil
}

func (b *bench) overheadOf(who string, atOnce int) error {
	s, err := (*server)(nil), error(nil)
	path := "/stream/%s"
	if who == us {
		path = "/api/v1/executions/%s/stream?after=0"
		s, err = b.agented("AGENTED_MAX_CONCURRENT=" + strconv.Itoa(atOnce))
	} else {
		s, err = b.flask()
	}
	if err != nil {
		return err
	}
	defer s.Close()
	// One at a time: from the request to the first output of the process.
	gate := filepath.Join(s.dir, "words")
	if err := newGate(gate); err != nil {
		return err
	}
	pipe, err := os.OpenFile(gate, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer pipe.Close()
	time.Sleep(b.settle) // one-time work of the server after its start is not measured
	var first []float64
	for range b.singles {
		took, id, err := s.firstWords(time.Now(), gate, pipe)
		if err != nil {
			return err
		}
		first = append(first, float64(took.Microseconds())/1000)
		if _, err := s.follow(fmt.Sprintf(path, id)); err != nil {
			return err
		}
	}
	b.add("run.first", who, quantile(first, .5))
	b.add("run.first99", who, quantile(first, .99))

	var wg sync.WaitGroup
	var mu sync.Mutex
	done, failed := 0, error(nil)
	began := time.Now()
	for range atOnce {
		wg.Go(func() {
			for time.Since(began) < b.span {
				id, err := s.run("true")
				if err == nil {
					_, err = s.follow(fmt.Sprintf(path, id))
				}
				mu.Lock()
				done++
				failed = errors.Join(failed, err)
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	if failed != nil {
		return failed
	}
	rate := float64(done) / time.Since(began).Seconds()
	b.add("run.rate", who, rate)
	b.note("true by %s: %.0f/s, first words after %.1f ms", who, rate, quantile(first, .5))
	return nil
}

// follow reads a stream to its end.
func (s *server) follow(path string) (string, error) {
	req, err := http.NewRequest("GET", s.url(path), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("X-API-Key", apiKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var all bytes.Buffer
	in := bufio.NewScanner(resp.Body)
	for in.Scan() {
		all.Write(in.Bytes())
		all.WriteByte('\n')
	}
	if !bytes.Contains(all.Bytes(), []byte("event: complete")) {
		return "", fmt.Errorf("the stream ended early: %v, %s", in.Err(), all.Bytes())
	}
	return all.String(), nil
}

// running measures concurrent executions and their adoption.
func (b *bench) running() error {
	for _, n := range b.atOnce {
		if err := b.runningOf(n, n == b.atOnce[len(b.atOnce)-1]); err != nil {
			b.trouble("%d executions at once: %v", n, err)
		}
	}
	return nil
}

func (b *bench) runningOf(n int, last bool) error {
	s, err := b.agented("AGENTED_MAX_CONCURRENT=" + strconv.Itoa(n))
	if err != nil {
		return err
	}
	defer s.Close()
	lines, _, err := s.printers(n)
	if err != nil {
		return err
	}
	defer lines.Close()
	up := func() bool {
		var got struct {
			Items []any `json:"items"`
		}
		return len(shims(s.data())) >= n && s.call("GET", "/api/v1/executions?status=pending&limit=1", nil, &got) == nil && len(got.Items) == 0
	}
	if err := until("all executions to run", up); err != nil {
		return err
	}
	lines.begin(-1, 1)
	time.Sleep(b.settle)
	p, sh := s.self(), shims(s.data())
	cpu, shimCPU, began := p.cpu(), sh.cpu(), time.Now()
	time.Sleep(2 * b.span)
	span := time.Since(began).Seconds()
	share, shimShare := (p.cpu()-cpu).Seconds()/span*100, (sh.cpu()-shimCPU).Seconds()/span*100
	rss, each := p.rss()/(1<<20), sh.memory()/float64(len(sh))/(1<<20)
	b.point("running.server", us, float64(n), rss)
	b.point("running.cpu", us, float64(n), share)
	b.point("running.shims", "shims", float64(n), shimShare)
	b.note("%d at once: server %.1f MiB, %.2f %% of a core; shims %.2f MiB each, %.2f %%", n, rss, share, each, shimShare)
	if !last {
		return nil
	}
	b.add("running.server", us, rss)
	b.add("running.shim", us, each)
	b.add("running.cpu", us, share)
	b.add("running.shimcpu", us, shimShare)
	for range b.rounds {
		s.kill()
		took, err := s.start("/health/readiness")
		if err != nil {
			return err
		}
		b.add("start.adopt", us, float64(took.Microseconds())/1000)
		b.note("killed with %d running, ready again after %v", n, took)
		ready := time.Now()
		for left := -1.0; left != 0; time.Sleep(20 * time.Millisecond) {
			if left, err = s.metric("agented_attempts_to_resume"); err != nil {
				return err
			}
			if time.Since(ready) > 30*time.Second {
				return fmt.Errorf("%.0f of %d were not adopted half a minute after a restart", left, n)
			}
		}
		all := took + time.Since(ready)
		b.add("start.adopted", us, float64(all.Microseconds())/1000)
		b.note("the last one was adopted after %v", all)
		if got := len(shims(s.data())); got < n {
			return fmt.Errorf("only %d of %d were still running after a restart", got, n)
		}
	}
	return nil
}
