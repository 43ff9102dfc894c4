package clireal_test

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/clireal"
)

// realCase is one run of a real CLI with the expected result.
type realCase struct {
	request
	name    string
	outcome agented.Outcome
	reason  string // must be in the reason; empty: the reason must be empty
	text    string // the whole answer
	denied  string // must be in the first denied tool; empty: none may be denied
	silent  bool   // the CLI may omit denied tools
	file    bool   // ToolFile must have been written; otherwise it must not
}

var (
	read, edit, full = agented.PermissionRead, agented.PermissionEdit, agented.PermissionFull
	success, failed  = agented.OutcomeSuccess, agented.OutcomeFailed
)

func TestClaudeCode_scenarios(t *testing.T) {
	drive(t, agented.BackendClaude, []realCase{
		{name: "ok", request: request{scenario: clireal.Text, prompt: "--help is not a flag here"}, outcome: success, text: clireal.Answer},
		{name: "tool-edit", request: request{scenario: clireal.Tool, permission: edit}, outcome: success, text: clireal.ToolAnswer, file: true},
		{name: "tool-read", request: request{scenario: clireal.Tool, permission: read}, outcome: success, text: clireal.ToolAnswer, reason: "denied claude a tool (Bash: echo", denied: "Bash: echo"},
		{name: "tool-full", request: request{scenario: clireal.Tool, permission: full}, outcome: success, text: clireal.ToolAnswer, file: true},
		{name: "write-edit", request: request{scenario: clireal.Write, permission: edit}, outcome: success, text: clireal.ToolAnswer, file: true},
		{name: "write-read", request: request{scenario: clireal.Write, permission: read}, outcome: success, text: clireal.ToolAnswer, reason: "denied", denied: "Write: "},
		{name: "429-then-ok", request: request{scenario: clireal.Limited}, outcome: success, text: clireal.Answer},
		{name: "429-long", request: request{scenario: clireal.LongLimit}, outcome: agented.OutcomeRateLimited, reason: "organization's rate limit"},
		{name: "401", request: request{scenario: clireal.Refused}, outcome: agented.OutcomeAuth, reason: "Invalid API key"},
		{name: "nokey", request: request{scenario: clireal.Text, noKey: true}, outcome: agented.OutcomeAuth, reason: "Not logged in"},
		{name: "credit", request: request{scenario: clireal.Quota}, outcome: agented.OutcomeRateLimited, reason: "Credit balance is too low"},
		{name: "usage-limit", request: request{scenario: clireal.UsageLimit, oauth: true}, outcome: agented.OutcomeRateLimited, reason: "limit"},
		{name: "529", request: request{scenario: clireal.Overloaded}, outcome: agented.OutcomeTransient, reason: "529"},
		{name: "500", request: request{scenario: clireal.Broken, env: map[string]string{"CLAUDE_CODE_MAX_RETRIES": "1"}}, outcome: agented.OutcomeTransient, reason: "500"},
		{name: "drop", request: request{scenario: clireal.Drop, env: map[string]string{"CLAUDE_CODE_MAX_RETRIES": "1"}}, outcome: agented.OutcomeTransient, reason: "API Error"},
		{name: "empty", request: request{scenario: clireal.Empty}, outcome: failed, reason: "no answer"},
		{name: "term", request: request{scenario: clireal.Hang, signal: syscall.SIGTERM, cause: agented.CauseTimeout}, outcome: agented.OutcomeTimeout, reason: "timeout"},
		{name: "int", request: request{scenario: clireal.Hang, signal: syscall.SIGINT}, outcome: failed, reason: "aborted"},
		{name: "maxturns", request: request{scenario: clireal.Tool, args: []string{"--max-turns", "1"}}, outcome: failed, reason: "turns", file: true},
		{name: "budget", request: request{scenario: clireal.Tool, args: []string{"--max-budget-usd", "0.0001"}}, outcome: failed, reason: "budget"},
		{name: "partial", request: request{scenario: clireal.Text, args: []string{"--include-partial-messages"}}, outcome: success, text: clireal.Answer},
		{name: "resume-bad", request: request{scenario: clireal.Text, resume: "99999999-2222-4333-8444-555555555555"}, outcome: failed, reason: "No conversation found"},
		{name: "badflag", request: request{scenario: clireal.Text, args: []string{"--nope"}}, outcome: failed, reason: "unknown option"},
	})
}

func TestCodex_scenarios(t *testing.T) {
	drive(t, agented.BackendCodex, []realCase{
		{name: "ok", request: request{scenario: clireal.Text, prompt: "--help is not a flag here"}, outcome: success, text: clireal.Answer},
		{name: "tool-edit", request: request{scenario: clireal.Tool, permission: edit}, outcome: success, text: clireal.ToolAnswer, file: true},
		{name: "tool-full", request: request{scenario: clireal.Tool, permission: full}, outcome: success, text: clireal.ToolAnswer, file: true},
		// The sandbox denies it, and only some events report that.
		{name: "tool-read", request: request{scenario: clireal.Tool, permission: read}, outcome: success, text: clireal.ToolAnswer, denied: "command_execution", silent: true},
		{name: "tool-model", request: request{scenario: clireal.Tool, model: "gpt-5"}, outcome: success, text: clireal.ToolAnswer, file: true},
		{name: "write-edit", request: request{scenario: clireal.Write, permission: edit}, outcome: success, text: clireal.ToolAnswer, file: true},
		{name: "write-read", request: request{scenario: clireal.Write, permission: read}, outcome: success, text: clireal.ToolAnswer, reason: "denied", denied: "apply_patch: "},
		{name: "429-then-ok", request: request{scenario: clireal.Limited}, outcome: success, text: clireal.Answer},
		{name: "429", request: request{scenario: clireal.Limit}, outcome: agented.OutcomeRateLimited, reason: "429"},
		{name: "401", request: request{scenario: clireal.Refused}, outcome: agented.OutcomeAuth, reason: "401"},
		{name: "usage-limit", request: request{scenario: clireal.UsageLimit}, outcome: agented.OutcomeRateLimited, reason: "usage limit"},
		{name: "quota", request: request{scenario: clireal.Quota}, outcome: agented.OutcomeRateLimited, reason: "Quota exceeded"},
		{name: "503", request: request{scenario: clireal.Overloaded}, outcome: agented.OutcomeTransient, reason: "capacity"},
		{name: "drop", request: request{scenario: clireal.Drop}, outcome: agented.OutcomeTransient, reason: "stream"},
		{name: "empty", request: request{scenario: clireal.Empty}, outcome: failed, reason: "no answer"},
		{name: "term", request: request{scenario: clireal.Hang, signal: syscall.SIGTERM, cause: agented.CauseCancelled}, outcome: agented.OutcomeCancelled, reason: "cancelled"},
		{name: "resume-bad", request: request{scenario: clireal.Text, resume: "01a2073d-0000-7000-8000-000000000000"}, outcome: failed, reason: "no rollout found"},
		{name: "badflag", request: request{scenario: clireal.Text, args: []string{"--nope"}}, outcome: failed, reason: "--nope"},
	})
}

func TestGemini_scenarios(t *testing.T) {
	drive(t, agented.BackendGemini, []realCase{
		{name: "ok", request: request{scenario: clireal.Text, prompt: "--help is not a flag here"}, outcome: success, text: clireal.Answer},
		{name: "tool-full", request: request{scenario: clireal.Tool, permission: full}, outcome: success, text: clireal.ToolAnswer, file: true},
		{name: "tool-edit", request: request{scenario: clireal.Tool, permission: edit}, outcome: success, text: clireal.ToolAnswer, reason: "denied", denied: "run_shell_command: echo"},
		{name: "write-edit", request: request{scenario: clireal.Write, permission: edit}, outcome: success, text: clireal.ToolAnswer, file: true},
		{name: "write-read", request: request{scenario: clireal.Write, permission: read}, outcome: success, text: clireal.ToolAnswer, reason: "denied", denied: "write_file: "},
		{name: "429-then-ok", request: request{scenario: clireal.Limited, model: "gemini-3.8-flash"}, outcome: success, text: clireal.Answer},
		{name: "429-long", request: request{scenario: clireal.LongLimit, model: "gemini-3.8-flash"}, outcome: agented.OutcomeRateLimited, reason: "retry in 3600s"},
		{name: "quota", request: request{scenario: clireal.Quota, model: "gemini-3.8-flash"}, outcome: agented.OutcomeRateLimited, reason: "quota"},
		{name: "401", request: request{scenario: clireal.Refused, model: "gemini-3.8-flash"}, outcome: agented.OutcomeAuth, reason: "API key not valid"},
		{name: "nokey", request: request{scenario: clireal.Text, noKey: true}, outcome: agented.OutcomeAuth, reason: "GEMINI_API_KEY"},
		{name: "drop", request: request{scenario: clireal.Drop, model: "gemini-3.8-flash"}, outcome: agented.OutcomeTransient, reason: "terminated"},
		{name: "empty", request: request{scenario: clireal.Empty, model: "gemini-3.8-flash"}, outcome: agented.OutcomeTransient, reason: "empty response"},
		{name: "term", request: request{scenario: clireal.Hang, model: "gemini-3.8-flash", signal: syscall.SIGTERM, cause: agented.CauseTimeout}, outcome: agented.OutcomeTimeout, reason: "timeout"},
		{name: "term-by-others", request: request{scenario: clireal.Hang, model: "gemini-3.8-flash", signal: syscall.SIGTERM}, outcome: failed, reason: "without"},
		{name: "untrusted", request: request{scenario: clireal.Text, env: map[string]string{"GEMINI_CLI_TRUST_WORKSPACE": "false"}}, outcome: failed, reason: "trusted"},
		{name: "resume-bad", request: request{scenario: clireal.Text, resume: "99999999-2222-4333-8444-555555555555"}, outcome: failed, reason: "Error resuming session"},
		{name: "badflag", request: request{scenario: clireal.Text, args: []string{"--nope"}}, outcome: failed, reason: "nope"},
	})
}

func TestOpenCode_scenarios(t *testing.T) {
	drive(t, agented.BackendOpenCode, []realCase{
		{name: "ok", request: request{scenario: clireal.Text, prompt: "--help is not a flag here"}, outcome: success, text: clireal.Answer},
		{name: "tool-full", request: request{scenario: clireal.Tool, permission: full}, outcome: success, text: clireal.ToolAnswer, file: true},
		{name: "tool-edit", request: request{scenario: clireal.Tool, permission: edit}, outcome: success, text: clireal.ToolAnswer, reason: "denied", denied: "bash"},
		{name: "write-edit", request: request{scenario: clireal.Write, permission: edit}, outcome: success, text: clireal.ToolAnswer, file: true},
		{name: "write-read", request: request{scenario: clireal.Write, permission: read}, outcome: success, text: clireal.ToolAnswer, reason: "denied", denied: "write: "},
		{name: "429-then-ok", request: request{scenario: clireal.Limited}, outcome: success, text: clireal.Answer},
		{name: "429", request: request{scenario: clireal.Limit}, outcome: agented.OutcomeRateLimited, reason: "Rate limit"},
		{name: "401", request: request{scenario: clireal.Refused}, outcome: agented.OutcomeAuth, reason: "Incorrect API key"},
		{name: "badmodel", request: request{scenario: clireal.Text, model: "nope/nope"}, outcome: failed, reason: "server error"},
		{name: "empty", request: request{scenario: clireal.Empty}, outcome: failed, reason: "no answer"},
		{name: "term", request: request{scenario: clireal.Hang, signal: syscall.SIGTERM, cause: agented.CauseSilence}, outcome: agented.OutcomeTimeout, reason: "nothing"},
		{name: "resume-bad", request: request{scenario: clireal.Text, resume: "ses_nonexistent00000000000"}, outcome: failed, reason: "Session not found"},
		{name: "badflag", request: request{scenario: clireal.Text, args: []string{"--nope"}}, outcome: failed, reason: "exited with code 1"},
	})
}

// drive runs the cases one after another, because each CLI uses a whole core.
func drive(t *testing.T, name string, cases []realCase) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, name)
			q := c.request
			q.sample = name + "-" + c.name
			got := b.do(t, q)
			check(t, c, got)
			_, err := os.Stat(b.standIn.WritePath)
			if written := err == nil; written != c.file {
				t.Errorf("the file was written: %v, want %v", written, c.file)
			}
			if t.Failed() {
				t.Logf("result %+v\noutput:\n%s", got.result, got.out)
			}
		})
	}
}

func check(t *testing.T, c realCase, got run) {
	t.Helper()
	r := got.result
	if c.silent && len(r.DeniedTools) == 0 {
		t.Logf("the CLI said nothing of the tool that it was denied")
		c.denied = ""
	} else if c.silent {
		c.reason = "denied"
	}
	if r.Outcome != c.outcome {
		t.Errorf("outcome %q, want %q", r.Outcome, c.outcome)
	}
	if (r.Reason == "") != (c.reason == "") || !strings.Contains(r.Reason, c.reason) {
		t.Errorf("reason %q, want %q in it", r.Reason, c.reason)
	}
	if c.outcome == success && r.Text != c.text {
		t.Errorf("text %q, want %q", r.Text, c.text)
	}
	switch {
	case c.denied == "" && len(r.DeniedTools) > 0:
		t.Errorf("denied tools %q, want none", r.DeniedTools)
	case c.denied != "" && (len(r.DeniedTools) == 0 || !strings.Contains(r.DeniedTools[0], c.denied)):
		t.Errorf("denied tools %q, want %q", r.DeniedTools, c.denied)
	}
	if c.outcome == success && (r.SessionID == "" || r.Usage.InputTokens == nil || r.Usage.OutputTokens == nil) {
		t.Errorf("session %q, usage %+v: want them known", r.SessionID, r.Usage)
	}
}
