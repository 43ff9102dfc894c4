package agentcli_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
)

// printed is one line of the corpus: recorded output of a CLI with the expected result.
type printed struct {
	CLI     string
	Lines   []string
	Stream  agented.Stream
	Now     time.Time
	Zone    string
	Exit    int
	Class   agented.Class
	Until   string
	Window  string
	Unknown bool
	Source  string
}

// corpus returns all recorded output: limits, other API errors, and lines that resemble them.
func corpus(t testing.TB) []printed {
	t.Helper()
	var out []printed
	for _, file := range []string{"corpus.jsonl", "lookalikes.jsonl"} {
		text, err := os.ReadFile(filepath.Join("testdata", "limits", file))
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(text) {
			var p printed
			if err := json.Unmarshal(line, &p); err != nil {
				t.Fatalf("%s, line %d: %v", file, len(out)+1, err)
			}
			if p.Stream == "" {
				p.Stream = agented.Stdout
			}
			out = append(out, p)
		}
	}
	return out
}

// read returns the result of the CLI's reader.
func (p printed) read(t testing.TB) agented.Result {
	t.Helper()
	zone, err := time.LoadLocation(p.Zone)
	if err != nil {
		t.Fatal(err)
	}
	r := reader(t, p.CLI)
	for _, line := range p.Lines {
		r.Line(p.Stream, []byte(line))
	}
	exit := exited(p.Exit)
	exit.FinishedAt = p.Now
	return r.Result(exit, p.Now.Add(3*time.Hour).In(zone)) // a server that was away reads it late
}

func TestLimit_corpus(t *testing.T) {
	t.Parallel()
	list := corpus(t)
	alike := 0
	for _, p := range list {
		if p.Class == agented.ClassAgentFailure {
			alike++
		}
	}
	if len(list) < 200 || alike < 100 {
		t.Errorf("%d outputs, %d of them no API errors; want 200 and 100", len(list), alike)
	}
	for _, p := range list {
		got := p.read(t)
		until := ""
		if !got.Limit.Until.IsZero() {
			until = got.Limit.Until.Format(time.RFC3339Nano)
		}
		if got.Class != p.Class || until != p.Until || got.Limit.Window != p.Window || got.Limit.Unknown != p.Unknown {
			t.Errorf("%s %s\n%s\n is %s until %q, window %q, unknown %v\nwant %s until %q, window %q, unknown %v",
				p.CLI, p.Source, strings.Join(p.Lines, "\n"), got.Class, until, got.Limit.Window, got.Limit.Unknown, p.Class, p.Until, p.Window, p.Unknown)
		}
		if got.Outcome != got.Class.Outcome() || !got.RetryAfter.Equal(got.Limit.Until) {
			t.Errorf("%s: %s and %s, %v and %v", p.Source, got.Class, got.Outcome, got.RetryAfter, got.Limit.Until)
		}
		if n := len(got.Limit.Evidence); p.Class != agented.ClassAgentFailure && n == 0 || n > agented.MaxEvidence {
			t.Errorf("%s: evidence %q", p.Source, got.Limit.Evidence)
		}
		if p.Source == "" {
			t.Errorf("%q has no source", p.Lines)
		}
	}
}
