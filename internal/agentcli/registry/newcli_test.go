package registry_test

import (
	"encoding/json"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
)

// newCLI is everything that a CLI needs: a command line, its constants, and how its output is decoded.
// In the product, it has a folder next to the others and a line in the list of the registry.
type newCLI struct{}

func (newCLI) Name() string    { return "sixth" }
func (newCLI) Program() string { return "sixth" }
func (newCLI) Install() string { return "install it with `npm install -g sixth`" }

func (newCLI) Plan(r agentcli.Request) (agentcli.Plan, error) {
	if err := agentcli.CheckResume(r); err != nil {
		return agentcli.Plan{}, err
	}
	args := []string{"sixth", "--json"}
	if r.Resume != "" {
		args = append(args, "--resume", r.Resume)
	}
	env := map[string]string{}
	agentcli.SetUnless(env, r, "SIXTH_NO_UPDATE", "1")
	return agentcli.Plan{Args: append(args, r.Spec.Args...), Env: env, Stdin: []byte(agentcli.WithSystem(r)), Capture: agented.CaptureFile}, nil
}

var newRules = agentcli.Rules{
	Subject: "sixth", Protocol: true,
	Variables: []string{"SIXTH_API_KEY", "SIXTH_HOME"},
	APIErrors: regexp.MustCompile(`^sixth: the API `),
	Stall:     &agentcli.StallRules{Quiet: agentcli.QuietPatience, Tool: agentcli.ToolPatience},
}

func (newCLI) Rules() *agentcli.Rules { return &newRules }

func (newCLI) Text(_ agented.Stream, line []byte) []agentcli.Event {
	return []agentcli.Event{agentcli.Plain(line)}
}

func (newCLI) Object(object []byte) (events []agentcli.Event, typed bool) {
	var l struct {
		Event, ID, Session, Model, Text, Tool, Error string
		Input                                        json.RawMessage
		In, Out                                      agentcli.Number
	}
	if !agentcli.Unmarshal(object, &l) {
		return nil, false
	}
	e := agentcli.Event{Kind: agentcli.KindUnknown}
	switch l.Event {
	case "hello":
		e = agentcli.Event{Kind: agentcli.KindStarted, Session: l.Session, Model: l.Model}
	case "say":
		e = agentcli.Event{Kind: agentcli.KindMessage, Role: "assistant", Text: l.Text, Marks: agentcli.Restarts | agentcli.Recovered}
	case "call":
		e = agentcli.Event{Kind: agentcli.KindToolCall, ID: l.ID, Tool: l.Tool, Input: l.Input, Marks: agentcli.Opens | agentcli.Resumes}
	case "called":
		e = agentcli.Event{Kind: agentcli.KindToolResult, ID: l.ID, Text: l.Text, Failed: l.Error != "", Marks: agentcli.Closes | agentcli.Works}
	case "wait":
		e = agentcli.Event{Kind: agentcli.KindRetry, Text: l.Error, Error: &agentcli.Failure{Message: l.Error}}
	case "bye":
		e = agentcli.Event{
			Kind: agentcli.KindResult, Failed: l.Error != "", Text: l.Error, Error: &agentcli.Failure{Message: l.Error},
			Usage: &agented.Usage{InputTokens: l.In.Count(), OutputTokens: l.Out.Count()},
		}
	}
	return []agentcli.Event{e}, l.Event != ""
}

// TestNewCLI shows what a sixth CLI needs, and that everything else then works with it.
func TestNewCLI(t *testing.T) {
	t.Cleanup(registry.Add(newCLI{}))
	cli, ok := registry.ByName("sixth")
	if !ok || !slices.Contains(registry.Names(), "sixth") {
		t.Fatal("the CLI is not in the registry")
	}
	now := time.Date(2026, 11, 23, 15, 0, 0, 0, time.UTC)
	prices, err := agented.ParsePrices([]byte(`{"date":"2030-01-01","source":"a test","models":[{"model":"m-1","input":1,"output":10}]}`))
	if err != nil {
		t.Fatal(err)
	}
	run := func(lines ...string) (*agentcli.Reader, *agentcli.Meter, *agentcli.StallDetector, []agentcli.Item) {
		reader, meter, stall, transcript := agentcli.NewReader(cli), agentcli.NewMeter("", prices), agentcli.NewStallDetector(cli, now), agentcli.NewTranscript()
		var said []agentcli.Item
		for _, line := range lines {
			events := agentcli.Decode(cli, agented.Stdout, []byte(line))
			reader.Add(events)
			meter.Add(events)
			stall.Add(now, events)
			said = append(said, transcript.Add(events)...)
		}
		return reader, meter, stall, said
	}
	exit := func(code int) agented.Exit {
		return agented.Exit{Cause: agented.CauseExit, Code: &code, FinishedAt: now}
	}

	t.Run("result_meter_and_transcript", func(t *testing.T) {
		reader, meter, stall, said := run(`{"event":"hello","session":"s1","model":"m-1"}`, `{"event":"call","id":"1","tool":"edit","input":{"path":"a"}}`,
			`{"event":"called","id":"1","text":"ok"}`, `noise {"event":"say","text":"Done."}`, `{"event":"bye","in":1000000,"out":100000}`)
		got := reader.Result(exit(0), now)
		if got.Outcome != agented.OutcomeSuccess || got.Text != "Done." || got.SessionID != "s1" || *got.Usage.InputTokens != 1000000 {
			t.Errorf("result %+v", got)
		}
		if u := meter.Usage(); meter.Model() != "m-1" || u.CostUSD == nil || *u.CostUSD != 2 || !u.Estimated {
			t.Errorf("model %s, usage %+v", meter.Model(), u)
		}
		if len(said) != 3 || said[0].Kind != agentcli.ItemToolCall || said[1].Text != "ok" || said[2].Text != "Done." {
			t.Errorf("transcript %+v", said)
		}
		if !stall.Finished(now.Add(agentcli.ResultGrace)) {
			t.Error("it is not finished after its result")
		}
	})
	t.Run("limit_in_its_result", func(t *testing.T) {
		reader, _, _, _ := run(`{"event":"hello"}`, `{"event":"bye","error":"Usage limit reached, try again in 2 hours"}`)
		got := reader.Result(exit(1), now)
		if got.Class != agented.ClassAccountLimit || !got.Limit.Until.Equal(now.Add(2*time.Hour)) {
			t.Errorf("%s until %v: %s", got.Class, got.Limit.Until, got.Reason)
		}
	})
	t.Run("plain_text", func(t *testing.T) {
		for text, want := range map[string]agented.Class{"sixth: the API is overloaded": agented.ClassOverload, "Error: overloaded": agented.ClassAgentFailure} {
			reader, _, _, _ := run(text)
			if got := reader.Result(exit(1), now); got.Class != want {
				t.Errorf("%q is %s: %s", text, got.Class, got.Reason)
			}
		}
	})
	t.Run("stall", func(t *testing.T) {
		_, _, stall, _ := run(`{"event":"hello"}`, `{"event":"wait","error":"429 Too Many Requests"}`)
		if got, stalled := stall.Stalled(now.Add(6 * time.Minute)); !stalled || got.Class != agented.ClassThrottle {
			t.Errorf("stalled %v: %+v", stalled, got)
		}
		_, _, stall, _ = run(`{"event":"call","id":"1","tool":"make"}`)
		if _, stalled := stall.Stalled(now.Add(time.Hour)); stalled {
			t.Error("stalled while its tool runs")
		}
	})
	t.Run("environment", func(t *testing.T) {
		own := map[string]string{"SIXTH_API_KEY": "k", "OPENAI_API_KEY": "other"}
		env, err := registry.ChildEnv(cli, agented.Spec{Backend: "sixth"}, own, func(string) (string, bool) { return "", false }, nil)
		if err != nil || !slices.Contains(env, "SIXTH_API_KEY=k") || slices.Contains(env, "OPENAI_API_KEY=other") {
			t.Errorf("%q, %v", env, err)
		}
		codex, _ := registry.ByName(agented.BackendCodex)
		if env, _ = registry.ChildEnv(codex, agented.Spec{}, own, func(string) (string, bool) { return "", false }, nil); slices.Contains(env, "SIXTH_API_KEY=k") {
			t.Errorf("codex has its key: %q", env)
		}
	})
}
