//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// fanout describes a fan-out: executions, readers and rates.
type fanout struct {
	readers    int
	executions int
	rate       float64 // lines per second of each execution
	span       time.Duration
}

// lines returns the number of lines that each execution prints.
func (f fanout) lines() int { return int(f.rate * f.span.Seconds()) }

// measured is the result of a fan-out.
type measured struct {
	perCPU float64 // deliveries per CPU-second of the server
	idle   float64 // memory in bytes per reader while nothing is sent
	busy   float64 // memory in bytes per reader at the end
	p50    float64 // from print to read, in ms
	p99    float64
	rate   float64 // deliveries per second, up to the last one
	lost   int64
}

// source is the origin of lines: executions of a server, or channels that this program publishes
// to.
type source struct {
	server *server
	paths  []string // paths of the streams
	begin  func() error
	end    func()
}

// source starts what a fan-out needs at one of the servers.
func (b *bench) source(who string, f fanout) (*source, error) {
	switch who {
	case nchan:
		return b.channels(f)
	case bare:
		return b.bareServer(f)
	case gevent:
		s, err := b.flask()
		return b.executions(s, err, "/stream/%s", f)
	default:
		s, err := b.agented("AGENTED_MAX_CONCURRENT="+strconv.Itoa(f.executions+1), "AGENTED_MAX_CONNECTIONS="+strconv.Itoa(f.readers+200))
		return b.executions(s, err, "/api/v1/executions/%s/stream", f)
	}
}

func (b *bench) executions(s *server, err error, path string, f fanout) (*source, error) {
	if err != nil {
		return nil, err
	}
	p, ids, err := s.printers(f.executions)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	src := &source{server: s}
	for _, id := range ids {
		src.paths = append(src.paths, fmt.Sprintf(path, id))
	}
	src.begin = func() error { p.begin(f.lines(), f.rate); return nil }
	src.end = p.Close
	return src, nil
}

// channels publishes to nchan like a separate application: over persistent connections.
func (b *bench) channels(f fanout) (*source, error) {
	s, err := b.nginx()
	if err != nil {
		return nil, err
	}
	src := &source{server: s}
	for i := range f.executions {
		src.paths = append(src.paths, fmt.Sprintf("/sub/c%d", i))
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	src.begin = func() error {
		const publishers = 8
		began := time.Now()
		for p := range min(publishers, f.executions) {
			w, err := dial(s.addr)
			if err != nil {
				return err
			}
			w.conn.(*net.TCPConn).SetNoDelay(true)
			wg.Go(func() {
				defer w.conn.Close()
				for n := 1; n <= f.lines(); n++ {
					for c := p; c < f.executions; c += publishers {
						due := dueAt(began, n, c, f.executions, f.rate)
						select {
						case <-stop:
							return
						case <-time.After(time.Until(due)):
						}
						if _, _, err := w.ask(post(fmt.Sprintf("/pub/c%d", c), stampedLine(due, n))); err != nil {
							return
						}
					}
				}
			})
		}
		return nil
	}
	src.end = func() { close(stop); wg.Wait() }
	return src, nil
}

// fan measures one fan-out at one of the servers.
func (b *bench) fan(who string, f fanout) (m measured, err error) {
	src, err := b.source(who, f)
	if err != nil {
		return m, err
	}
	defer src.server.Close()
	defer src.end()
	crowd, err := newReaders()
	if err != nil {
		return m, err
	}
	defer crowd.Close()
	if who == us {
		// All executions must run before memory is measured.
		if err := until("the executions to start", func() bool {
			time.Sleep(100 * time.Millisecond) // scanning all processes costs time
			return len(shims(src.server.data())) >= f.executions
		}); err != nil {
			return m, err
		}
	}
	request := func(i int) string { return stream(src.paths[i%len(src.paths)]) }
	// Code, tables and buffers that the first half needs are not a cost per reader.
	half := f.readers / 2
	if err := crowd.connect(src.server.addr, half, request); err != nil {
		return m, err
	}
	p := src.server.procs()
	if who == us || who == gevent {
		p = serverOnly(src.server)
	}
	time.Sleep(b.settle)
	before, others := p.memory(), float64(f.readers-half)
	if err := crowd.connect(src.server.addr, f.readers-half, request); err != nil {
		return m, err
	}
	time.Sleep(b.settle)
	m.idle = (p.memory() - before) / others

	crowd.latencies()
	if err := src.begin(); err != nil {
		return m, err
	}
	// Measure from the first line to the last delivery, so that any backlog of the server or the
	// readers counts.
	cpu, began, want := p.cpu(), time.Now(), int64(f.lines()*f.readers)
	for seen, quiet := int64(0), time.Now(); crowd.lines.Load() < want; time.Sleep(5 * time.Millisecond) {
		if n := crowd.lines.Load(); n != seen {
			seen, quiet = n, time.Now()
		}
		if time.Since(quiet) > 5*time.Second {
			break
		}
	}
	took := time.Since(began)
	used, got := p.cpu()-cpu, crowd.lines.Load()
	lat := crowd.latencies()
	m.busy = (p.memory() - before) / others
	m.perCPU = float64(got) / used.Seconds()
	m.rate = float64(got) / took.Seconds()
	m.p50, m.p99 = quantile(lat, .5), quantile(lat, .99)
	m.lost = want - got + crowd.lost.Load()
	if gone := crowd.ended.Load(); gone > 0 {
		return m, fmt.Errorf("%d readers were disconnected", gone)
	}
	return m, nil
}

// serverOnly returns the processes of the server without its executions.
func serverOnly(s *server) procs {
	if s.name == us {
		return s.self()
	}
	// Gunicorn and its worker; the worker's children are executions.
	out := s.self()
	for _, pid := range s.procs() {
		if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); bytes.Contains(b, []byte("gunicorn")) && pid != out[0] {
			out = append(out, pid)
		}
	}
	return out
}

// fanouts measures all fan-outs; the servers take turns.
func (b *bench) fanouts() error {
	for _, n := range b.crowds {
		for range b.rounds {
			perCPU := map[string]float64{}
			for _, who := range append(b.who(nchan, gevent), bare) {
				f := fanout{readers: n, executions: 1, rate: 20, span: b.span}
				m, err := b.fan(who, f)
				b.note("fan-out to %d of %s: %+v %v", n, who, m, err)
				if err != nil {
					b.trouble("fan-out to %d: %s: %v", n, who, err)
					continue
				}
				perCPU[who] = m.perCPU
				at := fmt.Sprintf("fanout.%d.", n)
				if who == bare {
					b.add(at+"bare", us, 100*perCPU[us]/m.perCPU)
					continue
				}
				b.step(who, n, m)
				b.add(at+"cpu", who, m.perCPU)
				b.add(at+"idle", who, m.idle/1024)
				b.add(at+"p99", who, m.p99)
				b.add(at+"p50", who, m.p50)
				b.add(at+"rate", who, m.rate)
				b.add(at+"lost", who, float64(m.lost))
			}
		}
	}
	return nil
}

// ladder measures how a fan-out scales, for the plots.
func (b *bench) ladder() error {
	for _, n := range b.steps {
		for _, who := range b.who(nchan, gevent) {
			m, err := b.fan(who, fanout{readers: n, executions: 1, rate: 20, span: b.span})
			b.note("step of %d readers, %s: %+v %v", n, who, m, err)
			if err != nil {
				b.trouble("%d readers: %s: %v", n, who, err)
				continue
			}
			b.step(who, n, m)
		}
	}
	return nil
}

// step adds one point to the plots of how a fan-out scales.
func (b *bench) step(who string, readers int, m measured) {
	b.point("readers.cpu", who, float64(readers), m.perCPU)
	b.point("readers.idle", who, float64(readers), m.idle/1024)
	b.point("readers.p99", who, float64(readers), m.p99)
}

// spread measures many executions with few readers each, and one execution with as many lines for
// comparison.
func (b *bench) spread() error {
	f := fanout{readers: b.spreadReaders, executions: b.spreadReaders / 20, rate: spreadRate, span: b.span}
	for range min(b.rounds, 2) {
		for _, who := range b.who(nchan) {
			for _, many := range []bool{false, true} {
				g, at := f, "spread.many."
				if !many {
					g.executions, at = 1, "spread.one."
				}
				m, err := b.fan(who, g)
				b.note("spread over %d executions of %s: %+v %v", g.executions, who, m, err)
				if err != nil {
					b.trouble("%d readers over %d executions: %s: %v", g.readers, g.executions, who, err)
					continue
				}
				b.add(at+"cpu", who, m.perCPU)
				b.add(at+"p99", who, m.p99)
				b.add(at+"idle", who, m.idle/1024)
			}
		}
	}
	return nil
}

// spreadRate is the number of lines per second of each of the many executions: with a higher
// rate, the many shims on the machine would be measured.
const spreadRate = 1

// burst measures one execution that prints as fast as it can.
func (b *bench) burst() error {
	const lines, readers = 200_000, 100
	for range b.rounds {
		if err := b.burstOnce(lines, readers); err != nil {
			b.trouble("burst: %v", err)
		}
	}
	return nil
}

func (b *bench) burstOnce(lines, count int) error {
	s, err := b.agented()
	if err != nil {
		return err
	}
	defer s.Close()
	gate := filepath.Join(s.dir, "go")
	if err := newGate(gate); err != nil {
		return err
	}
	id, err := s.run(b.self, "emit", "-go", gate, "-n", strconv.Itoa(lines))
	if err != nil {
		return err
	}
	crowd, err := newReaders()
	if err != nil {
		return err
	}
	defer crowd.Close()
	if err := crowd.connect(s.addr, count, func(int) string { return stream("/api/v1/executions/" + id + "/stream?after=0") }); err != nil {
		return err
	}
	before := s.self().memory()
	peak := s.self().peak(20 * time.Millisecond)
	opened, err := openGate(gate)
	if err != nil {
		return err
	}
	defer opened.Close()
	if err := until("the burst to reach all", func() bool { return crowd.lines.Load() >= int64(lines*count) }); err != nil {
		return err
	}
	most := peak()
	var first, last struct {
		Lines []struct {
			At time.Time `json:"timestamp"`
		} `json:"lines"`
	}
	e, err := s.await(id, time.Minute)
	if err != nil {
		return err
	}
	for after, into := range map[int]any{0: &first, int(e.LastSeq) - 1: &last} {
		if err := s.call("GET", fmt.Sprintf("/api/v1/executions/%s/log?limit=1&after=%d", id, after), nil, into); err != nil {
			return err
		}
	}
	if len(first.Lines) == 0 || len(last.Lines) == 0 {
		return fmt.Errorf("the log of %s has no first or last line", id)
	}
	// A line is stamped when it is accepted, and the printing program is limited by the disk, so
	// the last stamp is when all lines were on their way to disk.
	span := last.Lines[0].At.Sub(first.Lines[0].At).Seconds()
	b.add("burst.lost", us, float64(int64(lines*count)-crowd.lines.Load()+crowd.lost.Load()))
	b.add("burst.rate", us, float64(lines)/span)
	b.add("burst.memory", us, (most-before)/(1<<20))
	b.note("burst: %.0f lines/s, %d of %d delivered, %.1f MiB more", float64(lines)/span, crowd.lines.Load(), lines*count, (most-before)/(1<<20))
	return nil
}

// catchUp measures readers that join at the first line of a long log.
func (b *bench) catchUp() error {
	s, err := b.agented()
	if err != nil {
		return err
	}
	defer s.Close()
	id, err := s.run(b.self, "emit", "-n", strconv.Itoa(b.catchLines), "-hold", "10m")
	if err != nil {
		return err
	}
	if err := until("the log to be written", func() bool {
		var e execution
		page := struct {
			Next int64 `json:"next_after"`
		}{}
		_ = e
		return s.call("GET", fmt.Sprintf("/api/v1/executions/%s/log?limit=1&after=%d", id, b.catchLines-1), nil, &page) == nil && page.Next >= int64(b.catchLines)
	}); err != nil {
		return err
	}
	for range b.rounds {
		crowd, err := newReaders()
		if err != nil {
			return err
		}
		p := s.self()
		before := p.memory()
		crowd.slow.Store(true) // all start at the same time
		go func() { time.Sleep(500 * time.Millisecond); crowd.slow.Store(false) }()
		peak := p.peak(100 * time.Millisecond)
		err = crowd.connect(s.addr, b.catchReaders, func(int) string { return stream("/api/v1/executions/" + id + "/stream?after=0") })
		if err == nil {
			cpu, from, began := p.cpu(), crowd.bytes.Load(), time.Now()
			time.Sleep(b.span)
			mb := float64(crowd.bytes.Load()-from) / 1e6
			b.add("catchup.rate", us, mb/time.Since(began).Seconds())
			b.add("catchup.cpu", us, mb/max(0.01, (p.cpu()-cpu).Seconds()))
		}
		most := peak()
		crowd.Close()
		if err != nil {
			return err
		}
		b.add("catchup.memory", us, (most-before)/float64(b.catchReaders)/1024)
		b.note("catch-up: %.0f KiB a reader", (most-before)/float64(b.catchReaders)/1024)
		time.Sleep(time.Second)
	}
	return nil
}
