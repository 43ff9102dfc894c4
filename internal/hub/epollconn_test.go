package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/testrun"
)

// pair returns a connection between a server and a client.
func pair(t testing.TB) (server, client *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

// take hands a connection over and returns the client's end and the error of
// the stream.
func (s *hubFixture) take(start Start, patience time.Duration) (client *net.TCPConn, ended <-chan error) {
	s.Helper()
	server, client := pair(s.TB)
	if !CanHandOver(server) {
		s.Skip("connections are not taken over on this system")
	}
	done := make(chan error, 1)
	err := s.hub.Subscribe(s.id).HandOver(Handover{
		Conn: server, Head: []byte("HEAD\n\n"), Patience: patience,
		Done: func(_ int64, err error) { done <- err },
	}, s.execution(), start)
	if err != nil {
		s.Fatal(err)
	}
	return client, done
}

func TestTake_slow_reader(t *testing.T) {
	const lines = 20_000
	s := newScene(t, Options{})
	w := s.writer()
	s.write(w, 500, 100, strings.Repeat("x", 200))
	var work sync.WaitGroup
	var ends []<-chan error
	for i := range 8 {
		client, ended := s.take(Start{After: agented.Seq(i * 50)}, time.Minute)
		if i%2 == 1 {
			client.SetReadBuffer(128 << 10)
		}
		ends = append(ends, ended)
		work.Go(func() {
			var all strings.Builder
			buf := make([]byte, 100+i*3000) // frames are cut at all positions
			for {
				n, err := client.Read(buf)
				all.Write(buf[:n])
				if err != nil {
					break
				}
			}
			next := i*50 + 1
			for _, e := range parse([]byte(strings.TrimPrefix(all.String(), "HEAD\n\n"))) {
				if e.name != "log" {
					continue
				}
				if e.id != strconv.Itoa(next) {
					t.Errorf("reader %d: line %s, want %d", i, e.id, next)
					return
				}
				next++
			}
			if next != lines+501 || !strings.Contains(all.String(), "event: complete\n") {
				t.Errorf("reader %d ended at line %d", i, next-1)
			}
		})
	}
	s.write(w, lines, 50, strings.Repeat("x", 200))
	s.finish(w.LastSeq())
	work.Wait()
	for _, ended := range ends {
		if err := testrun.Receive(t, ended, "the reader to end"); err != nil {
			t.Error(err)
		}
	}
}

func TestTake_ends(t *testing.T) {
	s := newScene(t, Options{Heartbeat: 100 * time.Millisecond})
	w := s.writer()
	s.write(w, 1, 1, "")
	gone, goneEnd := s.take(Start{}, time.Minute)
	stuckOne, stuckEnd := s.take(Start{}, 200*time.Millisecond)
	stays, staysEnd := s.take(Start{}, time.Minute)
	gone.Close()
	if err := testrun.Receive(t, goneEnd, "the reader to end"); Failed(err) || err == nil {
		t.Errorf("a reader that is gone: %v", err)
	}
	go func() { _, _ = io.Copy(io.Discard, stays) }()
	for cut := false; !cut; {
		s.write(w, 2000, 100, strings.Repeat("x", 1000))
		select {
		case err := <-stuckEnd:
			if !errors.Is(err, errStuck) {
				t.Errorf("a reader that takes nothing: %v", err)
			}
			cut = true
		default:
		}
	}
	stuckOne.Close()
	s.hub.Drain()
	if err := testrun.Receive(t, staysEnd, "the reader to end"); !errors.Is(err, ErrDraining) {
		t.Errorf("while draining: %v", err)
	}
	if n := s.hub.Readers(); n != 0 {
		t.Errorf("%d readers are left", n)
	}
}

// Not parallel: it counts the allocations and writes of the process.
func TestTake_writes_and_allocations(t *testing.T) {
	const readers = 50
	h := New(Options{Layout: agented.Layout{Root: t.TempDir()}})
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- h.Run(ctx) }()
	tp := &topic{hub: h, id: "exec-x", poke: make(chan struct{}, 1), started: true}
	tp.ring.begin(0)
	h.mu.Lock()
	h.topics[tp.key()] = tp
	h.mu.Unlock()
	var clients []net.Conn
	e := &agented.Execution{ID: tp.id, State: agented.StateRunning, EventSeq: 1}
	for range readers {
		server, client := pair(t)
		if !CanHandOver(server) {
			t.Skip("connections are not taken over on this system")
		}
		sub := &Subscription{topic: tp, reader: newReader(time.Hour)}
		tp.refs++
		if err := sub.HandOver(Handover{Conn: server, Patience: time.Minute, Done: func(int64, error) {}}, e, Start{}); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, client)
	}
	buf := make([]byte, 4096)
	read := func(what string) {
		for _, c := range clients {
			got := ""
			for !strings.Contains(got, what) {
				n, err := c.Read(buf)
				if err != nil {
					t.Fatal(err)
				}
				got = string(buf[:n])
			}
		}
	}
	read("event: status")
	sc := &scratch{lines: []agented.LogLine{{At: time.Now(), Attempt: 1, Stream: agented.Stdout, Content: []byte("x")}}}
	line := func() {
		sc.lines[0].Seq++
		tp.publish(sc, nil, nil)
		for _, c := range clients {
			n, err := c.Read(buf)
			if err != nil || n < 50 {
				t.Fatal(n, err)
			}
		}
	}
	for range 50 {
		line()
	}
	before := h.pool.writes.Load()
	const lines = 200
	allocs := testing.AllocsPerRun(lines-1, line) // including one warm-up
	writes := float64(h.pool.writes.Load()-before) / lines / readers
	t.Logf("%d readers: %.2f allocations per line, %.3f writes per delivery", readers, allocs, writes)
	if allocs > 1 {
		t.Errorf("%.2f allocations per line, want none for its readers", allocs)
	}
	if writes > 1.001 {
		t.Errorf("%.3f writes per delivery, want one", writes)
	}
	cancel()
	if err := testrun.Receive(t, ran, "the hub to end"); err != nil {
		t.Error(err)
	}
	for _, c := range clients {
		if rest, _ := io.ReadAll(c); !strings.Contains(string(rest), "retry: ") {
			t.Errorf("a stream ends with %q", rest)
		}
	}
}

func FuzzRemainder(f *testing.F) {
	f.Add(uint16(3), uint16(40))
	f.Add(uint16(1), uint16(0))
	f.Fuzz(func(t *testing.T, count, cut uint16) {
		var frames []byte
		n := int64(count%50) + 1
		for i := int64(1); i <= n; i++ {
			frames = fmt.Appendf(frames, "id: %d\nevent: log\ndata: {%q}\n\n", i, strings.Repeat("y", int(i%7)))
		}
		at := int(cut) % (len(frames) + 1)
		rest, pos := remainder(frames, at, n)
		if at == len(frames) {
			if pos != n || len(rest) != 0 {
				t.Fatalf("nothing was cut, but %q is owed and the position is %d", rest, pos)
			}
			return
		}
		all := string(frames[:at]) + string(rest) + string(behind(frames, pos))
		if all != string(frames) {
			t.Fatalf("cut at %d: %q", at, all)
		}
	})
}
