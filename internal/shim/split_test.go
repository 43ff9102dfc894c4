package shim

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

// joined puts records together again, and checks the order of their parts.
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

func TestHoweverOutputArrivesItIsTheSameLines(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-is-the-word" // does not overlap itself
	mask := redact.New([]string{secret})
	piece := rapid.SampledFrom([]string{"a", "hun", "hunter2-", "\n", "\r", "\x00", "\xff", secret, "long enough to be cut somewhere ", "\n\n"})
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
		// Whoever goes on behind any record finds exactly the rest, but for a
		// line that was finished without a newline: that is the end.
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
