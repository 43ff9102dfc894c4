package agentcli_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
)

// printedLine is one line of an attempt's output.
type printedLine struct {
	stream agented.Stream
	text   string
}

// recorded is an output with its exit.
type recorded struct {
	name, cli string
	lines     []printedLine
	exit      agented.Exit
	now       time.Time
}

// verdict is everything that is derived from an output.
type verdict struct {
	Result  agented.Result
	Stopped agented.Result // the same output of an attempt that was stopped because it stalled
	Meter   []any          // after each line at which it changes
	Stall   []string       // after each line at which it changes
	Items   []any          `json:",omitempty"`
	Endings []any          `json:",omitempty"`
}

// verdictPrices has a price for the models of the samples.
const verdictPrices = `{"date":"2030-01-01","source":"a test","models":[
	{"model":"claude-*","input":3,"output":15,"cache_read":0.3,"cache_write":3.75},
	{"model":"gpt-*","input":1,"output":10,"cache_read":0.5},{"model":"gemini-*","input":0.5,"output":4,"cache_read":0.1}]}`

// String formats the verdict with one value a line.
func (v verdict) String() string {
	var b strings.Builder
	for _, part := range []struct {
		name  string
		value []any
	}{
		{"result", []any{v.Result}},
		{"stopped", []any{v.Stopped}},
		{"meter", v.Meter},
		{"stall", []any{v.Stall}},
		{"items", v.Items},
		{"ending", v.Endings},
	} {
		for _, value := range part.value {
			text, err := json.Marshal(value)
			if err != nil {
				panic(err)
			}
			fmt.Fprintf(&b, "%-8s%s\n", part.name, text)
		}
	}
	return b.String()
}

func changed[T any](list []T, last *string, v T) []T {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	if string(text) == *last {
		return list
	}
	*last = string(text)
	return append(list, v)
}

// judge passes the output through all parsers of the CLI with the given name.
func judge(cli string, r recorded, prices *agented.Prices) verdict {
	began := time.Date(2026, 11, 23, 14, 0, 0, 0, time.UTC)
	model := ""
	if cli == agented.BackendCodex || cli == agented.BackendOpenCode {
		model = "gpt-5.4"
	}
	c, again := newConsumers(cli, model, prices, began), newConsumers(cli, model, prices, began)
	var v verdict
	lastMeter, lastStall := "", ""
	at := began
	for _, l := range r.lines {
		at = at.Add(20 * time.Second)
		items, ending := c.line(at, l.stream, []byte(l.text))
		again.line(at, l.stream, []byte(l.text))
		if items != nil {
			v.Items = append(v.Items, items)
		}
		if ending != nil {
			v.Endings = append(v.Endings, ending)
		}
		v.Meter = changed(v.Meter, &lastMeter, c.meter())
		v.Stall = changed(v.Stall, &lastStall, stallText(c, at))
	}
	v.Result = c.result(r.exit, r.now)
	v.Stopped = again.result(agented.Exit{Cause: agented.CauseStalled, Signal: "SIGTERM", FinishedAt: r.exit.FinishedAt, Detail: "it made no progress"}, r.now)
	return v
}

// stallText formats what the stall detector reports at some times after a line.
func stallText(c consumers, at time.Time) string {
	var b strings.Builder
	if due := c.due(); !due.IsZero() {
		fmt.Fprintf(&b, "finished in %v", due.Sub(at))
	}
	for _, wait := range []time.Duration{0, time.Minute, 6 * time.Minute, 31 * time.Minute, 7 * time.Hour} {
		if class, why, stalled := c.stalled(at.Add(wait)); stalled {
			fmt.Fprintf(&b, " %v: %s %q", wait, class, why)
			break
		}
	}
	return strings.TrimSpace(b.String())
}

// recordings returns the recorded runs of real CLIs and the corpus of limits.
func recordings(t *testing.T) []recorded {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("*", "testdata", "samples", "*.exit.json"))
	if err != nil || len(files) < 50 {
		t.Fatalf("%d samples (%v)", len(files), err)
	}
	var out []recorded
	for _, file := range files {
		stdout, stderr, exit := sample(t, file)
		r := recorded{name: strings.TrimSuffix(filepath.Base(file), ".exit.json"), exit: exit, now: now}
		r.cli, _, _ = strings.Cut(r.name, "-")
		for line := range strings.Lines(stdout) {
			r.lines = append(r.lines, printedLine{agented.Stdout, strings.TrimSuffix(line, "\n")})
		}
		for line := range strings.Lines(stderr) {
			r.lines = append(r.lines, printedLine{agented.Stderr, strings.TrimSuffix(line, "\n")})
		}
		out = append(out, r)
	}
	for i, p := range corpus(t) {
		r := recorded{name: fmt.Sprintf("corpus-%d", i+1), cli: p.CLI, exit: exited(p.Exit)}
		r.exit.FinishedAt = p.Now
		zone, err := time.LoadLocation(p.Zone)
		if err != nil {
			t.Fatal(err)
		}
		r.now = p.Now.Add(3 * time.Hour).In(zone)
		for _, line := range p.Lines {
			r.lines = append(r.lines, printedLine{p.Stream, line})
		}
		out = append(out, r)
	}
	return out
}

// mutations returns the line with each of its fields deleted, or replaced by a value of another
// type.
func mutations(line string) []string {
	var value any
	if json.Unmarshal([]byte(line), &value) != nil {
		return []string{line[:len(line)/2], "x " + line, line + line}
	}
	var out []string
	emit := func() {
		text, err := json.Marshal(value)
		if err != nil {
			panic(err)
		}
		out = append(out, string(text))
	}
	n := 0
	other := func() any {
		n++
		return []any{nil, 7.0, "rate limit", []any{}, map[string]any{}, true, "", -1.5, []any{"x"}, map[string]any{"message": "429"}}[n%10]
	}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, key := range slices.Sorted(maps.Keys(v)) {
				was := v[key]
				delete(v, key)
				emit()
				v[key] = other()
				emit()
				v[key] = was
				walk(was)
			}
		case []any:
			for i, was := range v {
				v[i] = other()
				emit()
				v[i] = was
				walk(was)
			}
		}
	}
	walk(value)
	return append(out, line[:len(line)/2], "\x1b[2J"+line, line+line)
}

// digest returns a short hash of verdicts.
func digest(list ...verdict) string {
	h := sha256.New()
	if err := json.NewEncoder(h).Encode(list); err != nil {
		panic(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8])
}

// The golden files hold everything that is derived from every recorded output: in full for the
// CLI that printed it, and as hashes for its beginnings, for damaged lines and for other CLIs.
func TestGoldenVerdicts(t *testing.T) {
	t.Parallel()
	prices, err := agented.ParsePrices([]byte(verdictPrices))
	if err != nil {
		t.Fatal(err)
	}
	list := recordings(t)
	for _, cli := range agented.Backends {
		t.Run(cli, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			for _, r := range list {
				v := judge(cli, r, prices)
				if cli != r.cli {
					fmt.Fprintf(&out, "# %s: %s\n", r.name, digest(v))
					continue
				}
				fmt.Fprintf(&out, "# %s\n%s", r.name, v)
			}
			for _, r := range list {
				if cli == r.cli || cli == agented.BackendAnthropic && r.cli == agented.BackendClaude {
					fmt.Fprintf(&out, "# %s, beginnings: %s, damaged: %s\n", r.name, beginnings(cli, r, prices), damaged(cli, r, prices))
				}
			}
			golden(t, cli+"/testdata/verdicts.golden", out.String())
		})
	}
}

func beginnings(cli string, r recorded, prices *agented.Prices) string {
	var list []verdict
	for n := range r.lines {
		part := r
		part.lines = r.lines[:n]
		list = append(list, judge(cli, part, prices))
	}
	return digest(list...)
}

func damaged(cli string, r recorded, prices *agented.Prices) string {
	var list []verdict
	for i, l := range r.lines {
		for n, text := range mutations(l.text) {
			if n%7 != i%7 {
				continue // all of them take twenty seconds
			}
			part := r
			part.lines = slices.Clone(r.lines)
			part.lines[i].text = text
			list = append(list, judge(cli, part, prices))
		}
	}
	return digest(list...)
}
