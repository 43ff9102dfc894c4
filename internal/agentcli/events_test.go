package agentcli_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
)

// eventsOf returns the events of every line of a text, as the API shows them.
func eventsOf(t testing.TB, name, text string) [][]agentcli.Event {
	t.Helper()
	out := [][]agentcli.Event{}
	for line := range strings.Lines(text) {
		events := []agentcli.Event{}
		for _, e := range agentcli.Decode(anyCLI(name), agented.Stdout, []byte(strings.TrimSuffix(line, "\n"))) {
			if e.Kind != agentcli.KindText && e.Kind != agentcli.KindLog {
				events = append(events, e)
			}
		}
		out = append(out, events)
	}
	return out
}

// The golden files hold the events of every recorded run. The tests of the web interface read them.
func TestGoldenEvents(t *testing.T) {
	t.Parallel()
	for _, name := range agented.Backends[1:] {
		if name == agented.BackendAnthropic {
			continue // it prints events in the format of claude
		}
		files, err := filepath.Glob(filepath.Join(name, "testdata", "samples", "*.exit.json"))
		if err != nil || len(files) < 10 {
			t.Fatalf("%d samples of %s (%v)", len(files), name, err)
		}
		var out strings.Builder
		for _, file := range files {
			stdout, _, _ := sample(t, file)
			line, err := json.Marshal(map[string]any{"sample": strings.TrimSuffix(filepath.Base(file), ".exit.json"), "lines": eventsOf(t, name, stdout)})
			if err != nil {
				t.Fatal(err)
			}
			out.Write(append(line, '\n'))
		}
		golden(t, name+"/testdata/events.jsonl", out.String())
	}
}

// Every object that a CLI printed has at least one event, and its own kind unless it is unknown.
func TestEvents_of_recorded_runs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cli  string
		want []agentcli.Kind
	}{
		{"claude", []agentcli.Kind{agentcli.KindStarted, agentcli.KindMessage, agentcli.KindToolCall, agentcli.KindToolResult, agentcli.KindUsage, agentcli.KindRetry, agentcli.KindDenied, agentcli.KindDelta, agentcli.KindResult}},
		{"codex", []agentcli.Kind{agentcli.KindStarted, agentcli.KindTurn, agentcli.KindMessage, agentcli.KindToolCall, agentcli.KindToolResult, agentcli.KindRetry, agentcli.KindResult}},
		{"gemini", []agentcli.Kind{agentcli.KindStarted, agentcli.KindMessage, agentcli.KindToolCall, agentcli.KindToolResult, agentcli.KindResult}},
		{"opencode", []agentcli.Kind{agentcli.KindStepStarted, agentcli.KindMessage, agentcli.KindToolCall, agentcli.KindToolResult, agentcli.KindUsage, agentcli.KindStep, agentcli.KindError, agentcli.KindResult}},
	} {
		files, err := filepath.Glob(filepath.Join(c.cli, "testdata", "samples", "*.exit.json"))
		if err != nil {
			t.Fatal(err)
		}
		seen := map[agentcli.Kind]bool{}
		for _, file := range files {
			stdout, _, _ := sample(t, file)
			for i, events := range eventsOf(t, c.cli, stdout) {
				if len(events) == 0 {
					t.Errorf("%s, line %d has no events", file, i+1)
				}
				for _, e := range events {
					seen[e.Kind] = true
				}
			}
		}
		for _, kind := range c.want {
			if !seen[kind] {
				t.Errorf("%s: no %s in any sample", c.cli, kind)
			}
		}
	}
}
