package sse

import (
	"net/http/httptest"
	"testing"
)

func TestPosition(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]int64{
		"?lastEventId=60": 60, "?after=0&lastEventId=60": 60, "?Last-Event-ID=7": 7, "?last_event_id=8": 8, "?evs_last_event_id=9": 9, "?lastEventId=&after=3": 3, "?after=4": 4,
	} {
		r := httptest.NewRequest("GET", "/x"+query, nil)
		if got, named, err := Position(r); err != nil || !named || got != want {
			t.Errorf("%s: %d, %t, %v", query, got, named, err)
		}
		r.Header.Set("Last-Event-ID", "99")
		if got, _, _ := Position(r); got != 99 {
			t.Errorf("%s: the header does not win: %d", query, got)
		}
	}
	if _, _, err := Position(httptest.NewRequest("GET", "/x?lastEventId=abc", nil)); err == nil {
		t.Error("an id that is no number is accepted")
	}
}
