package chaos

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
)

// load generates load, injects faults for the configured time, and waits until everything has
// ended. It returns the executions that print throughout the test.
func (s *server) load(ctx context.Context, v *Report) ([]agented.ExecutionID, error) {
	printer, err := s.trigger(ctx, "printer", nil, "--rate", strconv.Itoa(s.o.Rate))
	if err != nil {
		return nil, err
	}
	pings, err := s.trigger(ctx, "ping", nil, "--lines", "3", "--rate", "1000")
	if err != nil {
		return nil, err
	}
	onPush := client.WebhookCreate{Source: "github"}
	onPush.Match.Events = []string{"push"}
	// The agent leaves a process behind, which must be terminated with its execution.
	if _, err := s.trigger(ctx, "hook", []client.WebhookCreate{onPush}, "--lines", "3", "--rate", "1000", "--linger"); err != nil {
		return nil, err
	}

	var numbers []agented.ExecutionID
	var wg sync.WaitGroup
	reading, stopReading := context.WithCancel(ctx)
	defer wg.Wait()
	defer stopReading()
	for i := range s.o.Executions {
		id, err := s.fire(ctx, printer, fmt.Sprintf("printer-%d", i))
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, id)
		for range 2 {
			r := &reader{id: id}
			s.readers = append(s.readers, r)
			wg.Go(func() { s.read(reading, r) })
		}
	}
	firing, stopFiring := context.WithCancel(ctx)
	defer stopFiring()
	var fires sync.WaitGroup
	defer fires.Wait()
	for i := range 2 {
		fires.Go(func() { s.fireAll(ctx, firing, i, pings) })
	}
	fires.Go(func() { s.deliverAll(ctx, firing) })

	err = s.injectFaults(ctx, v)
	stopFiring()
	fires.Wait() // calls in flight are repeated until they are acknowledged
	if err = errors.Join(err, os.WriteFile(filepath.Join(s.agents(), "stop"), nil, 0o600)); err != nil {
		return nil, err
	}
	s.o.Say(false, "waiting until all executions have ended")
	if err := s.settle(ctx); err != nil {
		return nil, err
	}
	read := make(chan struct{})
	go func() { defer close(read); wg.Wait() }()
	select { // every execution has ended, so every stream ends
	case <-read:
	case <-time.After(30 * time.Second):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	stopReading()
	<-read
	return numbers, nil
}

// trigger creates a trigger that runs the chaos agent.
func (s *server) trigger(ctx context.Context, name string, webhooks []client.WebhookCreate, args ...string) (id string, err error) {
	got, err := s.client.CreateTrigger(ctx, client.TriggerCreate{
		Name: name, Backend: agented.BackendCommand, MaxConcurrent: new(0), Webhooks: webhooks,
		Command: append([]string{s.program, "chaos-agent", "--dir", s.agents()}, args...),
	})
	return got.Value.ID, err
}

// fire runs a trigger with an idempotency key.
func (s *server) fire(ctx context.Context, trigger, key string) (agented.ExecutionID, error) {
	got, err := s.client.RunTrigger(ctx, trigger, key, client.RunRequest{})
	id := agented.ExecutionID(got.Value.ExecutionID)
	if err == nil {
		s.acknowledged(key, id)
	}
	return id, err
}

// acknowledged records the executions that a key started.
func (s *server) acknowledged(key string, ids ...agented.ExecutionID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if !slices.Contains(s.firings[key], id) {
			s.firings[key] = append(s.firings[key], id)
		}
	}
	if _, there := s.firings[key]; !there {
		s.firings[key] = nil // accepted, but nothing was fired: counted as lost
	}
}

func (s *server) problem(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problems = append(s.problems, err)
}

// read follows one execution as a browser does.
func (s *server) read(ctx context.Context, r *reader) {
	_, err := s.client.Follow(ctx, string(r.id), 0, client.Follower{Line: func(l client.Line) {
		if l.Stream == string(agented.Stdout) {
			r.tally.add(l.Content)
		}
	}})
	if err != nil && ctx.Err() == nil {
		s.problem(fmt.Errorf("client of %s: %w", r.id, err))
	}
}

// fireAll fires until more is cancelled; a call in flight is repeated until it is acknowledged.
func (s *server) fireAll(ctx, more context.Context, who int, trigger string) {
	random := rand.New(rand.NewPCG(s.o.Seed, uint64(who)))
	for n := 0; more.Err() == nil; n++ {
		key := fmt.Sprintf("ping-%d-%d", who, n)
		s.fired.Add(1)
		again := random.IntN(3) == 0 // simulates a client that lost the answer
		s.insist(ctx, func() error {
			_, err := s.fire(ctx, trigger, key)
			if err == nil && again {
				again = false
				s.repeated.Add(1)
				_, err = s.fire(ctx, trigger, key)
			}
			return err
		})
		sleep(more, time.Duration(100+random.IntN(300))*time.Millisecond)
	}
}

// deliverAll sends push deliveries as GitHub does, some of them twice.
func (s *server) deliverAll(ctx, more context.Context) {
	random := rand.New(rand.NewPCG(s.o.Seed, 99))
	for n := 0; more.Err() == nil; n++ {
		id, body := fmt.Sprintf("push-%d", n), fmt.Appendf(nil,
			`{"ref":"refs/heads/b%d","after":"%040x","created":false,"deleted":false,"forced":false,"commits":[],"repository":{"full_name":"o/r"},"pusher":{"name":"mona"},"sender":{"login":"mona","type":"User"}}`, n, n+1)
		s.fired.Add(1)
		s.insist(ctx, func() error { return s.deliver(ctx, id, body) })
		if random.IntN(3) == 0 {
			s.repeated.Add(1)
			s.insist(ctx, func() error { return s.deliver(ctx, id, body) })
		}
		sleep(more, time.Duration(200+random.IntN(600))*time.Millisecond)
	}
}

// insist repeats a call until the server accepts it.
func (s *server) insist(ctx context.Context, try func() error) {
	end := time.Now().Add(settleTime)
	for {
		err := try()
		kind := agented.KindOf(err)
		switch {
		case err == nil || ctx.Err() != nil:
			return
		case kind != agented.Unavailable && kind != agented.Internal && kind != agented.RateLimited || time.Now().After(end):
			s.problem(err)
			return
		}
		s.repeated.Add(1)
		sleep(ctx, 20*time.Millisecond)
	}
}

// deliver sends one signed push delivery.
func (s *server) deliver(ctx context.Context, id string, body []byte) error {
	mac := hmac.New(sha256.New, []byte(s.secret))
	mac.Write(body)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.addr+"/hooks/github", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-GitHub-Event", "push")
	req.Header.Set("X-GitHub-Delivery", id)
	req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return agented.Errorf(agented.Unavailable, "no answer").Because(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var got struct {
		Executions []agented.ExecutionID `json:"execution_ids"`
	}
	switch {
	case err != nil || resp.StatusCode >= 500:
		return agented.Errorf(agented.Unavailable, "the answer was incomplete").Because(err)
	case resp.StatusCode != http.StatusAccepted && resp.StatusCode != http.StatusOK:
		return agented.Errorf(agented.Invalid, "the delivery failed with status %s: %s", resp.Status, text)
	}
	if err := json.Unmarshal(text, &got); err != nil {
		return agented.Errorf(agented.Unavailable, "the answer was incomplete").Because(err)
	}
	s.acknowledged(id, got.Executions...)
	return nil
}
