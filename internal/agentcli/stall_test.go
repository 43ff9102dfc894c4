package agentcli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
)

// said is a line with the time since the start of the attempt.
type said struct {
	after time.Duration
	line  string
	err   bool // on standard error
}

func pulse(t testing.TB, name string, lines ...said) lineStall {
	t.Helper()
	b, ok := registry.ByName(name)
	if !ok {
		t.Fatalf("no backend %s", name)
	}
	p := newStall(b, now)
	for _, s := range lines {
		p.Line(now.Add(s.after), stream(s.err), []byte(s.line))
	}
	return p
}

func stream(err bool) agented.Stream {
	if err {
		return agented.Stderr
	}
	return agented.Stdout
}

// Lines that were recorded.
const (
	codexStarted  = `{"type":"turn.started"}`
	codexLimit    = `{"type":"error","message":"Reconnecting... 1/5 (exceeded retry limit, last status: 429 Too Many Requests)"}`
	codexNoNet    = `{"type":"error","message":"Reconnecting... waiting for network (Connection failed: error sending request)"}`
	codexCommand  = `{"type":"item.started","item":{"id":"item_0","type":"command_execution","command":"make","status":"in_progress"}}`
	codexFinished = `{"type":"item.completed","item":{"id":"item_0","type":"command_execution","command":"make","status":"completed"}}`
	codexFallback = `{"type":"item.completed","item":{"id":"item_1","type":"error","message":"Falling back from WebSockets to HTTPS transport. Connection refused (os error 111)"}}`
	claudeRetry   = `{"type":"system","subtype":"api_retry","attempt":1,"max_retries":10,"retry_delay_ms":1114,"error_status":429,"error":"rate_limit"}`
	claudeLost    = `{"type":"system","subtype":"api_retry","attempt":1,"max_retries":10,"retry_delay_ms":1114,"error_status":null,"error":"unknown"}`
	claudeTool    = `{"type":"assistant","message":{"content":[{"type":"tool_use","id":"toolu_1","name":"Bash","input":{"command":"make"}}]}}`
	claudeDone    = `{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"toolu_1","content":"ok"}]}}`
	geminiWaits   = `Attempt 1 failed: You exceeded your current quota, please check your plan and billing details. Please retry in 1s.`
	geminiTool    = `{"type":"tool_use","tool_name":"run_shell_command","tool_id":"t1"}`
	openLimit     = `timestamp=2026-11-23T20:28:13.275Z level=ERROR run=2111b7c6 message="stream error" providerID=standin modelID=standin-model session.id=ses_1 small=false agent=build mode=primary error.error="AI_APICallError: Rate limit reached for requests. Please try again in 3600s."`
	openTitle     = `timestamp=2026-11-23T20:28:19.070Z level=ERROR run=2111b7c6 message="stream error" providerID=standin modelID=standin-model session.id=ses_1 small=true agent=title mode=primary error.error="AI_RetryError: Failed after 3 attempts. Last error: Rate limit reached for requests."`
	openStep      = `{"type":"step_start","sessionID":"ses_1","part":{}}`
	openStepEnd   = `{"type":"step_finish","sessionID":"ses_1","part":{"reason":"tool-calls"}}`
)

func TestStallDetector_waiting_and_working(t *testing.T) {
	t.Parallel()
	const never = 100 * time.Hour
	for _, c := range []struct {
		what  string
		cli   string
		lines []said
		stuck time.Duration // since the start
		class agented.Class
		why   string
	}{
		{"codex sleeps on a limit", "codex", []said{{0, codexStarted, false}, {time.Minute, codexLimit, false}}, 6 * time.Minute, agented.ClassThrottle, "429 Too Many Requests"},
		{"codex got on", "codex", []said{{0, codexLimit, false}, {time.Second, codexCommand, false}}, never, "", ""},
		{"codex runs a command", "codex", []said{{0, codexStarted, false}, {time.Second, codexCommand, false}}, never, "", ""},
		{"codex waits for the model", "codex", []said{{0, codexCommand, false}, {time.Minute, codexFinished, false}}, 31 * time.Minute, agented.ClassNetwork, "printed nothing for 30m0s"},
		{"codex says nothing at all", "codex", nil, 30 * time.Minute, agented.ClassNetwork, "printed nothing"},
		{
			"codex goes on saying that it waits for a network", "codex",
			[]said{{0, codexStarted, false}, {time.Minute, codexNoNet, false}, {2 * time.Minute, codexFallback, false}, {4 * time.Minute, codexNoNet, false}, {5*time.Minute + 30*time.Second, codexNoNet, false}},
			6 * time.Minute, agented.ClassNetwork, "waiting for network",
		},
		{"claude tries again", "claude", []said{{0, claudeRetry, false}, {3 * time.Minute, claudeRetry, false}}, 5 * time.Minute, agented.ClassThrottle, "rate_limit"},
		{"claude has lost the network", "claude", []said{{0, claudeLost, false}}, 5 * time.Minute, agented.ClassNetwork, "unknown"},
		{"claude runs a tool", "claude", []said{{0, claudeTool, false}}, 6 * time.Hour, agented.ClassNetwork, "while a tool was running"},
		{"claude thinks", "claude", []said{{0, claudeTool, false}, {time.Second, claudeDone, false}}, 30*time.Minute + time.Second, agented.ClassNetwork, "printed nothing for 30m0s"},
		{"claude says nothing at all", "claude", nil, 30 * time.Minute, agented.ClassNetwork, "printed nothing"},
		{"gemini tries again", "gemini", []said{{0, geminiWaits, true}, {time.Second, "Suggested retry after 1s.. Retrying after 5993ms...", true}}, 5 * time.Minute, agented.ClassThrottle, "Attempt 1 failed"},
		{"gemini runs a tool", "gemini", []said{{0, geminiTool, false}}, never, "", ""},
		{"opencode waits out a limit", "opencode", []said{{0, openLimit, true}}, 5 * time.Minute, agented.ClassThrottle, "try again in 3600s"},
		{"opencode has no title", "opencode", []said{{0, openTitle, true}, {time.Second, openStep, false}}, never, "", ""},
		{"opencode may run a tool", "opencode", []said{{0, openStep, false}}, never, "", ""},
		{"opencode waits for the model", "opencode", []said{{0, openStep, false}, {time.Minute, openStepEnd, false}}, 31 * time.Minute, agented.ClassNetwork, "printed nothing"},
	} {
		p := pulse(t, c.cli, c.lines...)
		if _, stuck := p.Stalled(now.Add(c.stuck - time.Second)); stuck {
			t.Errorf("%s: stuck before %v", c.what, c.stuck)
		}
		got, stuck := p.Stalled(now.Add(c.stuck))
		if stuck != (c.class != "") || got.Class != c.class || !strings.Contains(got.Why, c.why) {
			t.Errorf("%s: stuck %v on %q %q, want %q %q", c.what, stuck, got.Class, got.Why, c.class, c.why)
		}
	}
	if b, _ := registry.ByName(agented.BackendCommand); agentcli.NewStallDetector(b, now) != nil {
		t.Error("a command is watched, though nobody knows what it waits for")
	}
}

func TestStallDetector_rebuilt_from_log(t *testing.T) {
	t.Parallel()
	for name, lines := range map[string][]said{
		"codex":    {{0, codexStarted, false}, {1, codexLimit, false}, {2, codexCommand, false}, {3, codexFinished, false}, {4, codexNoNet, false}, {5, codexNoNet, false}},
		"claude":   {{0, claudeTool, false}, {1, claudeDone, false}, {2, claudeRetry, false}, {3, claudeRetry, false}},
		"opencode": {{0, openStep, false}, {1, openStepEnd, false}, {2, openLimit, true}},
	} {
		want, stuck := pulse(t, name, lines...).Stalled(now.Add(time.Hour))
		if !stuck {
			t.Fatalf("%s is not stuck", name)
		}
		for from := range lines {
			p := pulse(t, name)
			p.Skip(now.Add(lines[from].after))
			for _, s := range lines[from:] {
				p.Line(now.Add(s.after), stream(s.err), []byte(s.line))
			}
			if got, stuck := p.Stalled(now.Add(time.Hour)); !stuck || got != want {
				t.Errorf("%s from line %d: %v %+v, want %+v", name, from, stuck, got, want)
			}
		}
	}
}

func TestResult_stalled_class(t *testing.T) {
	t.Parallel()
	stuck := agented.Exit{Cause: agented.CauseStalled, Signal: "SIGTERM", FinishedAt: now, Detail: "it waits on its provider and makes no progress"}
	for _, c := range []struct {
		cli, stdout, stderr string
		class               agented.Class
		until               time.Time
		reason              string
	}{
		{"codex", codexStarted + "\n" + codexLimit, "", agented.ClassThrottle, time.Time{}, "codex sent too many requests"},
		{"codex", codexStarted + "\n" + codexNoNet, "", agented.ClassNetwork, time.Time{}, "the network or the connection failed"},
		{"codex", codexStarted, "", agented.ClassNetwork, time.Time{}, "printed nothing while it waited for the model"},
		{"codex", `{"type":"error","message":"Reconnecting... 1/5 (something new)"}`, "", agented.ClassNetwork, time.Time{}, "something new"},
		{"claude", claudeRetry, "", agented.ClassThrottle, time.Time{}, "rate_limit"},
		{"gemini", "", geminiWaits, agented.ClassThrottle, now.Add(time.Second), "gemini sent too many requests"},
		{"opencode", "", openLimit, agented.ClassAccountLimit, now.Add(time.Hour), "opencode reached a limit of its account"},
		{"opencode", openStep + "\n" + openStepEnd, openTitle, agented.ClassNetwork, time.Time{}, "printed nothing while it waited"},
	} {
		got := readAll(t, c.cli, c.stdout, c.stderr, stuck)
		if got.Class != c.class || got.Outcome != c.class.Outcome() || !got.Limit.Until.Equal(c.until) || !strings.Contains(got.Reason, c.reason) {
			t.Errorf("%s %s: %s %s until %v: %q", c.cli, c.stdout+c.stderr, got.Outcome, got.Class, got.Limit.Until, got.Reason)
		}
		if got.Limit.Class != got.Class || got.Limit.Evidence == "" || !strings.HasSuffix(got.Reason, "so it was stopped to release its slot") {
			t.Errorf("%s: %+v %q", c.cli, got.Limit, got.Reason)
		}
	}
}

func TestStallDetector_recorded_runs(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join("*", "testdata", "samples", "*.out"))
	if err != nil || len(files) < 50 {
		t.Fatalf("%d samples (%v)", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name, _, _ := strings.Cut(filepath.Base(file), "-")
		p, at := pulse(t, name), now
		for line := range strings.Lines(string(text)) {
			at = at.Add(20 * time.Second)
			if s, stuck := p.Stalled(at); stuck {
				t.Errorf("%s is stuck after %v: %+v", file, at.Sub(now), s)
			}
			p.Line(at, agented.Stdout, []byte(strings.TrimSuffix(line, "\n")))
		}
	}
}

func FuzzPulse(f *testing.F) {
	for _, line := range []string{codexLimit, codexNoNet, codexCommand, claudeRetry, claudeTool, claudeDone, geminiWaits, geminiTool, openLimit, openStep, "", "\x00"} {
		f.Add([]byte(line), []byte(codexLimit), int64(1000))
	}
	f.Fuzz(func(t *testing.T, one, two []byte, after int64) {
		for _, b := range registry.All()[1:] {
			p := newStall(b, now)
			for i, line := range [][]byte{one, two, one, two, one} {
				p.Line(now.Add(time.Duration(i)*time.Second), stream(i%2 == 1), line)
			}
			at := now.Add(time.Duration(after % int64(100*time.Hour)))
			got, stuck := p.Stalled(at)
			switch {
			case stuck && at.Sub(now) < 5*time.Minute:
				t.Errorf("%s is stuck after %v", b.Name(), at.Sub(now))
			case stuck && (got.Why == "" || len(got.Why) > 1000 || got.Class == "" || got.Class == agented.ClassAgentFailure):
				t.Errorf("%s: %+v", b.Name(), got)
			}
		}
	})
}
