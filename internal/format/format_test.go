package format_test

import (
	"testing"

	"github.com/agented/agented/internal/format"
)

func TestBytes(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0 bytes", 1023: "1023 bytes", 1024: "1 KiB", 3 << 19: "1.5 MiB", 1 << 40: "1 TiB"} {
		if got := format.Bytes(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestPlural(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "0 days", 1: "1 day", 2: "2 days"} {
		if got := format.Plural(n, "day", "days"); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestClip(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text           string
		n              int
		truncate, clip string
	}{
		{"short", 5, "short", "short"}, {"longer", 5, "longe", "longe…"}, {"aé", 2, "a", "a…"}, {"日本", 3, "日", "日…"}, {"é", 0, "", "…"},
	} {
		if got := format.Truncate(tt.text, tt.n); got != tt.truncate {
			t.Errorf("Truncate(%q, %d) = %q, want %q", tt.text, tt.n, got, tt.truncate)
		}
		if got := format.Clip(tt.text, tt.n); got != tt.clip {
			t.Errorf("Clip(%q, %d) = %q, want %q", tt.text, tt.n, got, tt.clip)
		}
	}
}

func TestFit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text            string
		n               int
		fit, characters string
	}{
		{"short", 5, "short", "short"}, {"longer", 5, "lo…", "longe…"}, {"日本語", 6, "日…", "日本語"}, {"日本語", 2, "", "日本…"},
	} {
		if tt.fit != "" {
			if got := format.Fit(tt.text, tt.n); got != tt.fit {
				t.Errorf("Fit(%q, %d) = %q, want %q", tt.text, tt.n, got, tt.fit)
			}
		}
		if got := format.ClipCharacters(tt.text, tt.n); got != tt.characters {
			t.Errorf("ClipCharacters(%q, %d) = %q, want %q", tt.text, tt.n, got, tt.characters)
		}
	}
}

func TestPrintable(t *testing.T) {
	t.Parallel()
	if got := format.Printable("a\x1b[1mé\n", '?'); got != "a?[1mé?" {
		t.Errorf("%q", got)
	}
}
