package shim

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

// joined joins records, and checks the order of their parts.
func joined(t *rapid.T, recs []runlog.Record, inner bool) []byte {
	var out []byte
	for i, r := range recs {
		if starts := r.Part == agented.PartWhole || r.Part == agented.PartFirst; starts == inner {
			t.Fatalf("record %d is %q, within a line: %v", i, r.Part, inner)
		}
		inner = r.Part == agented.PartFirst || r.Part == agented.PartMiddle
		out = append(out, r.Content...)
		if !inner && !r.NoEOL {
			out = append(out, '\n')
		}
	}
	if inner {
		t.Fatal("the last line has no last part")
	}
	return out
}

func TestSplit_any_chunking(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-is-the-word" // does not overlap itself
	mask := redact.New([]string{secret})
	piece := rapid.SampledFrom([]string{"a", "hun", "hunter2-", "\n", "\r", "\x00", "\xff", secret, "long enough to be cut somewhere ", "\n\n", "日", "é", "🙂"})
	rapid.Check(t, func(t *rapid.T) {
		text := []byte(strings.Join(rapid.SliceOfN(piece, 0, 40).Draw(t, "text"), ""))
		at := time.Unix(0, 0)
		out := batch{attempt: 1}
		s := newSplitter(&out, agented.Stdout, mask, true)
		for rest := text; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "chunk")
			s.feed(rest[:n], at)
			rest = rest[n:]
			if rapid.Bool().Draw(t, "quiet") {
				at = at.Add(2 * quiet)
				s.rest(at)
			}
		}
		s.end(at)
		want := bytes.ReplaceAll(text, []byte(secret), []byte(redact.Mask))
		if got := joined(t, out.recs, false); !bytes.Equal(got, want) {
			t.Fatalf("%q became %q", text, got)
		}
		if !bytes.Contains(text, []byte("\xff")) {
			for _, r := range out.recs {
				if !utf8.Valid(r.Content) {
					t.Fatalf("%q was cut inside a character: %q", text, r.Content)
				}
			}
		}
		// Resuming after any record yields exactly the rest, except after a line that was
		// finished without a newline, which is the end.
		for i, r := range out.recs {
			if r.NoEOL {
				break
			}
			again := batch{attempt: 1}
			s := newSplitter(&again, agented.Stdout, mask, true)
			inner := r.Part == agented.PartFirst || r.Part == agented.PartMiddle
			s.resume(r.RawEnd, inner)
			s.feed(text[r.RawEnd:], at)
			s.end(at)
			if got, want := joined(t, again.recs, inner), joined(t, out.recs[i+1:], inner); !bytes.Equal(got, want) {
				t.Fatalf("behind record %d (%d): %q, want %q", i, r.RawEnd, got, want)
			}
		}
	})
}

func TestSplit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text string
		masked     []string
	}{
		{"long_line_of_three_byte_characters", strings.Repeat("日", 700_000), nil},
		{"long_line_of_four_byte_characters", "x" + strings.Repeat("🙂", 600_000), nil},
		{"long_line_with_secrets", "é" + strings.Repeat("日日日hunter2-is-the-word", 100_000), []string{"hunter2-is-the-word"}},
		{"mask_longer_than_its_value", "é" + strings.Repeat("é12345678", 200_000), []string{"12345678"}},
	} {
		t.Run(c.name+"_is_cut_between_characters", func(t *testing.T) {
			t.Parallel()
			out := batch{attempt: 1}
			s := newSplitter(&out, agented.Stdout, redact.New(c.masked), true)
			for rest := []byte(c.text); len(rest) > 0; {
				n := min(len(rest), chunkSize)
				s.feed(rest[:n], time.Unix(0, 0))
				rest = rest[n:]
			}
			s.end(time.Unix(0, 0))
			var got []byte
			for i, r := range out.recs {
				if !utf8.Valid(r.Content) {
					t.Errorf("part %d of %d is no valid UTF-8: ends with %q", i+1, len(out.recs), r.Content[len(r.Content)-8:])
				}
				got = append(got, r.Content...)
			}
			want := c.text
			for _, secret := range c.masked {
				want = strings.ReplaceAll(want, secret, redact.Mask)
			}
			if len(out.recs) < 2 && len(want) > runlog.MaxLine || string(got) != want {
				t.Errorf("%d parts with %d bytes, want %d bytes", len(out.recs), len(got), len(want))
			}
		})
	}
	t.Run("quiet_line_keeps_an_unfinished_character", func(t *testing.T) {
		at := time.Unix(0, 0)
		out := batch{attempt: 1}
		s := newSplitter(&out, agented.Stdout, redact.New(nil), true)
		s.feed([]byte("Datum: 日"[:len("Datum: 日")-1]), at)
		at = at.Add(2 * quiet)
		s.rest(at)
		s.feed([]byte("日"[2:]+"\n"), at)
		if len(out.recs) != 2 || string(out.recs[0].Content) != "Datum: " || string(out.recs[1].Content) != "日" {
			t.Errorf("%d records, the first is %q", len(out.recs), out.recs[0].Content)
		}
	})
	t.Run("bytes_that_are_no_utf8_are_kept", func(t *testing.T) {
		out := batch{attempt: 1}
		s := newSplitter(&out, agented.Stdout, redact.New(nil), true)
		text := strings.Repeat("\xe6\xff\x80", 700_000)
		s.feed([]byte(text), time.Unix(0, 0))
		s.end(time.Unix(0, 0))
		var got []byte
		for _, r := range out.recs {
			got = append(got, r.Content...)
		}
		if string(got) != text {
			t.Errorf("%d bytes became %d", len(text), len(got))
		}
	})
}
