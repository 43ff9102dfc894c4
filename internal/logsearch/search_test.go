package logsearch

import "testing"

func TestSearch_carriage_return(t *testing.T) {
	t.Parallel()
	find, err := finder("^progress", true, true)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]int{"progress 1": 0, "\rprogress 1": 1, "start\rprogress 1\rprogress 2": 6, "no progress": -1} {
		got := find([]byte(text))
		if want < 0 && got != nil || want >= 0 && (got == nil || got[0] != want) {
			t.Errorf("%q: %v, want %d", text, got, want)
		}
	}
}
