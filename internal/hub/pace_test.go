package hub

import (
	"context"
	"testing"
	"time"
)

func TestPace_number_of_readers(t *testing.T) {
	t.Parallel()
	for readers, want := range map[int]time.Duration{
		0: pace, 1: pace, 200: pace, 1000: 20 * time.Millisecond, 10_000: 200 * time.Millisecond, 1_000_000: maxPace,
	} {
		if got := paceFor(readers); got != want {
			t.Errorf("paceFor(%d) = %s, want %s", readers, got, want)
		}
	}
}

func TestPace_single_line(t *testing.T) {
	t.Parallel()
	s := newScene(t, Options{})
	w := s.writer()
	topic := &topic{hub: s.hub, id: s.id, dir: s.layout.Execution(s.id)}
	topic.ring.begin(0)
	s.write(w, 1, 1, "")
	log, err := topic.open()
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var next time.Time
	pause := time.NewTimer(time.Hour)
	drain := func(ctx context.Context, last int64) {
		t.Helper()
		if err := topic.drain(ctx, log, nil, pause, &next); err != nil {
			t.Fatal(err)
		}
		if got, _ := topic.ring.end(); got != last {
			t.Errorf("the readers have line %d, want %d", got, last)
		}
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	began := time.Now()
	drain(stopped, 1) // a batch that had to wait would not arrive
	if next.Before(began.Add(pace)) || next.After(time.Now().Add(pace)) {
		t.Errorf("the next may go %s after the first", next.Sub(began))
	}
	s.write(w, 1, 1, "")
	next = time.Now().Add(time.Hour)
	drain(stopped, 1) // this batch must wait
	next = time.Now()
	drain(stopped, 2)
	// Lines printed meanwhile are sent as one batch.
	s.write(w, 3, 1, "")
	drain(t.Context(), 5)
	if frames, to, at, err := topic.ring.next(2); err != nil || at != here || to != 5 {
		t.Errorf("%q up to %d, %v %v", frames, to, at, err)
	}
}
