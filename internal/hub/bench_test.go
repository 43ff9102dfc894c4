package hub

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/runlog"
)

// null is a sink that counts deliveries and discards them.
type null struct {
	bytes   int64
	flushed *atomic.Int64 // number of frames that all sinks have flushed
	pending int64
	done    func(int64)
}

func (k *null) Write(p []byte) error {
	k.bytes += int64(len(p))
	k.pending++
	return nil
}

func (k *null) Flush() error {
	if n := k.flushed.Add(k.pending); k.done != nil {
		k.done(n)
	}
	k.pending = 0
	return nil
}

// readersFixture is n readers of a topic without a log writer: frames are added to the
// ring directly.
type readersFixture struct {
	topic     *topic
	scratch   scratch
	delivered atomic.Int64
	all       chan struct{}
	want      atomic.Int64
	stop      func()
}

func newCrowd(tb testing.TB, n int) *readersFixture {
	h := New(Options{Layout: agented.Layout{Root: tb.TempDir()}})
	c := &readersFixture{topic: &topic{hub: h, poke: make(chan struct{}, 1)}, all: make(chan struct{}, 1)}
	c.topic.ring.begin(0)
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	done := func(n int64) {
		if n == c.want.Load() {
			c.all <- struct{}{}
		}
	}
	for range n {
		r := newReader(time.Hour)
		c.topic.audience.join(r)
		work.Go(func() {
			_ = r.follow(ctx, &outlet{sink: &null{flushed: &c.delivered, done: done}}, &feed{ring: &c.topic.ring}, 0)
		})
	}
	c.stop = func() {
		cancel()
		work.Wait()
	}
	c.scratch.lines = []agented.LogLine{{At: time.Now(), Attempt: 1, Stream: agented.Stdout, Content: []byte(strings.Repeat("x", 100))}}
	return c
}

// line publishes a line and waits until every reader has received it.
func (c *readersFixture) line(readers int) {
	c.want.Add(int64(readers))
	c.scratch.lines[0].Seq++
	c.topic.publish(&c.scratch, nil, nil)
	if readers > 0 {
		<-c.all
	}
}

// Not parallel: it counts the allocations of the process.
func TestPublish_allocations(t *testing.T) {
	for _, c := range []struct {
		readers int
		most    float64
	}{{0, 0.1}, {1, 0.2}, {200, 0.5}} {
		crowd := newCrowd(t, c.readers)
		for range 100 {
			crowd.line(c.readers)
		}
		got := testing.AllocsPerRun(500, func() { crowd.line(c.readers) })
		t.Logf("%d readers: %.2f allocations per line", c.readers, got)
		if got > c.most {
			t.Errorf("%d readers: %.2f allocations per line, want at most %.1f", c.readers, got, c.most)
		}
		crowd.stop()
	}
}

// Not parallel, as above. Here the line is read from the log after a wake-up.
func TestTopic_allocations(t *testing.T) {
	s := newScene(t, Options{})
	w := s.writer()
	var flushed atomic.Int64
	got := make(chan int64, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	wait := s.serve(ctx, &null{flushed: &flushed, done: func(n int64) { got <- n }}, Start{})
	<-got // the status
	s.write(w, 2000, 2000, "")
	for flushed.Load() < 2 {
		<-got
	}
	const lines = 100
	seen := flushed.Load()
	batch := func() {
		s.write(w, lines, lines, "")
		for flushed.Load() == seen {
			<-got
		}
		seen = flushed.Load()
	}
	batch()
	perLine := testing.AllocsPerRun(20, batch) / lines
	// Producing the lines costs the test three allocations.
	t.Logf("%.2f allocations per line, those of the test among them", perLine)
	if perLine > 5 {
		t.Errorf("%.2f allocations per line", perLine)
	}
	cancel()
	wait()
}

func BenchmarkPublishToReaders(b *testing.B) {
	for _, n := range []int{1, 1000, 10_000} {
		b.Run(map[int]string{1: "1", 1000: "1000", 10_000: "10000"}[n], func(b *testing.B) {
			c := newCrowd(b, n)
			defer c.stop()
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				c.line(n)
			}
			b.StopTimer()
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/delivery")
		})
	}
}

// One line at a time, from the write to the log until a reader has received it.
func BenchmarkLineFromLogToReader(b *testing.B) {
	s := newScene(b, Options{})
	w := s.writer()
	var flushed atomic.Int64
	got := make(chan int64, 10)
	ctx, cancel := context.WithCancel(context.Background())
	wait := s.serve(ctx, &null{flushed: &flushed, done: func(n int64) { got <- n }}, Start{})
	<-got // the status
	rec := []runlog.Record{{LogLine: agented.LogLine{At: time.Now(), Attempt: 1, Stream: agented.Stdout, Content: []byte("line")}}}
	b.ReportAllocs()
	var took time.Duration
	for b.Loop() {
		time.Sleep(2 * pace) // a program that prints occasionally
		from := time.Now()
		if err := w.Append(rec); err != nil {
			b.Fatal(err)
		}
		<-got
		took += time.Since(from)
	}
	b.ReportMetric(float64(took.Microseconds())/float64(b.N), "us/line")
	cancel()
	wait()
}

func BenchmarkCatchUp(b *testing.B) {
	const lines = 1_000_000
	s := newScene(b, Options{})
	w := s.writer()
	s.write(w, lines, 1000, strings.Repeat("x", 90))
	w.Close()
	s.finish(lines)
	for _, readers := range []int{1, 100} {
		b.Run(map[int]string{1: "1 reader", 100: "100 readers"}[readers], func(b *testing.B) {
			b.ReportAllocs()
			var total int64
			for range b.N {
				var waits []func() error
				var sinks []*null
				for range readers {
					k := &null{flushed: new(atomic.Int64)}
					sinks = append(sinks, k)
					waits = append(waits, s.serve(context.Background(), k, Start{}))
				}
				for i, wait := range waits {
					if err := wait(); err != nil {
						b.Fatal(err)
					}
					total += sinks[i].bytes
				}
			}
			b.SetBytes(total / int64(b.N))
			b.ReportMetric(float64(lines*readers*b.N)/b.Elapsed().Seconds(), "lines/s")
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	l := agented.LogLine{Seq: 123456, At: time.Now(), Attempt: 1, Stream: agented.Stdout, Content: []byte(strings.Repeat(`{"type":"text","text":"grüße"}`, 5))}
	var c clock
	var buf []byte
	b.ReportAllocs()
	b.SetBytes(int64(len(l.Content)))
	for b.Loop() {
		buf = c.frame(buf[:0], &l)
	}
}
