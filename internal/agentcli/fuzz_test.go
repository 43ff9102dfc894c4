package agentcli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/agented/agented"
)

// fuzzReader checks that no output makes a reader panic, store too much, or return a result that
// cannot be shown, and that truncated output is never a success.
func fuzzReader(f *testing.F, name string) {
	files, err := filepath.Glob(filepath.Join(name, "testdata", "samples", "*.out"))
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, []byte("Error: something"), 0)
		f.Add(text[:len(text)/2], []byte("\xff\x00\n"), 143)
	}
	if name == agented.BackendClaude {
		f.Add([]byte(claudeInit+`{"type":"result","subtype":"success","result":"one","usage":{"input_tokens":1}}`+"\n"+claudeEmpty), []byte(nil), 1)
	}
	for _, p := range corpus(f) {
		if p.CLI == name {
			f.Add([]byte(strings.Join(p.Lines, "\n")), []byte(strings.Join(p.Lines, "\n")), p.Exit)
		}
	}
	f.Fuzz(func(t *testing.T, stdout, stderr []byte, code int) {
		r := reader(t, name)
		feed(r, agented.Stdout, stdout)
		feed(r, agented.Stderr, stderr)
		got := r.Result(exited(code), now)
		switch got.Outcome {
		case agented.OutcomeSuccess:
			// An empty error after a good result does not undo it, and 1 repeats it.
			repeated := (name == agented.BackendClaude || name == agented.BackendAnthropic) && code == 1 && strings.Contains(got.Reason, "reported an error after its result")
			if code != 0 && !repeated {
				t.Errorf("exit %d is a success: %q", code, got.Reason)
			}
		case agented.OutcomeFailed, agented.OutcomeAuth, agented.OutcomeRateLimited, agented.OutcomeTransient:
			if got.Reason == "" {
				t.Errorf("%s without a reason", got.Outcome)
			}
		default:
			t.Errorf("outcome %q of a process that ended by itself", got.Outcome)
		}
		if got.Class.Outcome() != got.Outcome || !got.RetryAfter.Equal(got.Limit.Until) {
			t.Errorf("class %q and outcome %q, %v and %v", got.Class, got.Outcome, got.RetryAfter, got.Limit.Until)
		}
		if u := got.Limit.Until; !u.IsZero() && (!u.After(now) || u.Sub(now) > 40*24*time.Hour) {
			t.Errorf("lifts at %v", u)
		}
		if e := got.Limit.Evidence; len(e) > agented.MaxEvidence || !utf8.ValidString(e) || strings.ContainsAny(e, "\n\r\x1b\x00") {
			t.Errorf("evidence %q", e)
		}
		shown := append([]string{got.Reason, got.SessionID, got.CLIVersion}, got.DeniedTools...)
		for _, s := range shown {
			if len(s) > 600 || strings.ContainsAny(s, "\n\r\x1b\x00") && s != got.SessionID && s != got.CLIVersion {
				t.Errorf("%q cannot be shown", s)
			}
		}
		if len(got.Text) > agented.MaxResult || !utf8.ValidString(got.Text) || !utf8.ValidString(got.Reason) {
			t.Errorf("text of %d bytes, reason %q", len(got.Text), got.Reason)
		}
	})
}

func FuzzAnthropicReader(f *testing.F) { fuzzReader(f, agented.BackendAnthropic) }
func FuzzCommandReader(f *testing.F)   { fuzzReader(f, agented.BackendCommand) }
func FuzzClaudeReader(f *testing.F)    { fuzzReader(f, agented.BackendClaude) }
func FuzzCodexReader(f *testing.F)     { fuzzReader(f, agented.BackendCodex) }
func FuzzGeminiReader(f *testing.F)    { fuzzReader(f, agented.BackendGemini) }
func FuzzOpenCodeReader(f *testing.F)  { fuzzReader(f, agented.BackendOpenCode) }
