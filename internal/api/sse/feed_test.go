package sse

import (
	"math"
	"testing"
)

func TestFeeds(t *testing.T) {
	t.Parallel()
	f := NewFeeds()
	f.Notify("a") // without readers it costs nothing
	f.Note("a", "early", []byte("{}"))
	_, from := f.since("a", math.MaxInt, nil)
	leave, also := f.join("a"), f.join("a")
	next := f.next("a")
	f.Notify("b")
	select {
	case <-next:
		t.Error("another feed wakes the readers")
	default:
	}
	f.Note("b", "other", []byte("{}"))
	f.Note("a", "expired", []byte(`{"seq":1}`))
	select {
	case <-next:
	default:
		t.Error("a note does not wake the readers")
	}
	got, now := f.since("a", from, nil)
	if string(got) != "event: expired\ndata: {\"seq\":1}\n\n" || now != from+2 {
		t.Errorf("notes %q, position %d", got, now)
	}
	if again, _ := f.since("a", now, nil); len(again) != 0 {
		t.Errorf("notes are repeated: %q", again)
	}
	leave()
	if f.Open() != 1 {
		t.Errorf("%d feeds", f.Open())
	}
	also()
	if f.Open() != 0 {
		t.Errorf("%d feeds after the last reader left", f.Open())
	}
	f.End()
	f.End()
	select {
	case <-f.drain:
	default:
		t.Error("End does not end the streams")
	}
}

func TestFeeds_old_notes_are_dropped(t *testing.T) {
	t.Parallel()
	f := NewFeeds()
	for range maxNotes + 10 {
		f.Note("a", "n", nil)
	}
	got, now := f.since("a", 0, nil)
	if n := len(got) / len("event: n\ndata: \n\n"); n != maxNotes || now != maxNotes+10 {
		t.Errorf("%d notes, position %d", n, now)
	}
}

func TestChanges(t *testing.T) {
	t.Parallel()
	var c Changes
	c.Notify(ChangedAgents)
	seen := map[Change]int64{}
	if first, _ := c.since(seen); len(first) != 1 || first[0] != ChangedAgents {
		t.Errorf("changed %v", first)
	}
	changed, wake := c.since(seen)
	if len(changed) != 0 {
		t.Errorf("changed again: %v", changed)
	}
	c.Notify(ChangedTicks)
	c.Notify(ChangedTicks)
	c.Notify(ChangedDeliveries)
	<-wake
	if changed, _ = c.since(seen); len(changed) != 2 || changed[0] != ChangedDeliveries || changed[1] != ChangedTicks {
		t.Errorf("changed %v", changed)
	}
}

func TestAppendEvent(t *testing.T) {
	t.Parallel()
	if got := string(AppendEvent([]byte("x"), 7, "message", []byte(`{"a":1}`))); got != "xid: 7\nevent: message\ndata: {\"a\":1}\n\n" {
		t.Errorf("%q", got)
	}
}
