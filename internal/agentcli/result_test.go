package agentcli_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
)

// now is when the samples are read.
var now = time.Date(2026, 11, 23, 15, 0, 0, 0, time.UTC)

func exited(code int) agented.Exit {
	return agented.Exit{Cause: agented.CauseExit, Code: &code, FinishedAt: now}
}

func reader(t testing.TB, name string) lineReader {
	t.Helper()
	b, ok := registry.ByName(name)
	if !ok {
		t.Fatalf("no backend %s", name)
	}
	return lineReader{b, agentcli.NewReader(b)}
}

// feed passes the text's lines to the reader as the shim cuts them.
func feed(r lineReader, stream agented.Stream, text []byte) {
	for line := range bytes.Lines(text) {
		r.Line(stream, bytes.TrimSuffix(line, []byte("\n")))
	}
}

// readAll returns the result of a complete output.
func readAll(t testing.TB, name, stdout, stderr string, exit agented.Exit) agented.Result {
	t.Helper()
	r := reader(t, name)
	feed(r, agented.Stdout, []byte(stdout))
	feed(r, agented.Stderr, []byte(stderr))
	return r.Result(exit, now)
}

// sample is a recorded run of a real CLI: NAME.out, NAME.err, NAME.exit.json.
func sample(t *testing.T, exitFile string) (stdout, stderr string, exit agented.Exit) {
	t.Helper()
	facts, err := os.ReadFile(exitFile)
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Cause  agented.Cause
		Code   *int
		Signal string
	}
	if err := json.Unmarshal(facts, &f); err != nil {
		t.Fatal(err)
	}
	stem := strings.TrimSuffix(exitFile, ".exit.json")
	read := func(ext string) string {
		text, err := os.ReadFile(stem + ext)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return string(text)
	}
	return read(".out"), read(".err"), agented.Exit{Cause: f.Cause, Code: f.Code, Signal: f.Signal, FinishedAt: now}
}

func TestGoldenResultsOfEverySample(t *testing.T) {
	t.Parallel()
	for _, name := range agented.Backends[1:] {
		if name == agented.BackendAnthropic {
			continue // its output is covered by the tests of internal/anthropicapi
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files, err := filepath.Glob(filepath.Join(name, "testdata", "samples", "*.exit.json"))
			if err != nil || len(files) < 10 {
				t.Fatalf("%d samples of %s, want ten or more (%v)", len(files), name, err)
			}
			var out strings.Builder
			for _, file := range files {
				stdout, stderr, exit := sample(t, file)
				result := readAll(t, name, stdout, stderr, exit)
				text, err := json.MarshalIndent(result, "", "  ")
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&out, "# %s\n%s\n", strings.TrimSuffix(filepath.Base(file), ".exit.json"), text)
			}
			golden(t, name+"/testdata/results.golden", out.String())
		})
	}
}

func TestSamplesNameNoMachine(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join("*", "testdata", "samples", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"/tmp/Test", "/root", ".cache/", "go-build"} {
			if bytes.Contains(text, []byte(bad)) {
				t.Errorf("%s holds %q", file, bad)
			}
		}
	}
}

// Lines of a successful run, as short as the readers accept them.
const (
	claudeGood   = `{"type":"system","subtype":"init","session_id":"s1","claude_code_version":"2.1.330"}` + "\n" + `{"subtype":"success","is_error":false,"result":"the answer","session_id":"s1","type":"result"}` + "\n"
	codexGood    = `{"type":"thread.started","thread_id":"s1"}` + "\n" + `{"type":"item.completed","item":{"type":"agent_message","text":"the answer"}}` + "\n" + `{"type":"turn.completed","usage":{}}` + "\n"
	geminiGood   = `{"type":"init","session_id":"s1"}` + "\n" + `{"type":"message","role":"assistant","content":"the answer","delta":true}` + "\n" + `{"type":"result","status":"success"}` + "\n"
	openCodeGood = `{"type":"step_start","sessionID":"s1"}` + "\n" + `{"type":"text","part":{"text":"the answer"}}` + "\n" + `{"type":"step_finish","part":{"reason":"stop"}}` + "\n"
)

var good = map[string]string{"claude": claudeGood, "codex": codexGood, "gemini": geminiGood, "opencode": openCodeGood}

func TestResult_success(t *testing.T) {
	t.Parallel()
	for name, out := range good {
		want := agented.Result{Outcome: agented.OutcomeSuccess, Text: "the answer", SessionID: "s1"}
		got := readAll(t, name, out, "", exited(0))
		want.CLIVersion, got.Usage = got.CLIVersion, agented.Usage{}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestResult_needs_more_than_exit_code(t *testing.T) {
	t.Parallel()
	for name, out := range good {
		lines := strings.SplitAfter(out, "\n")
		for n := range len(lines) - 1 {
			cut := strings.Join(lines[:n], "")
			for _, tail := range []string{"", lines[n][:len(lines[n])/2]} {
				if got := readAll(t, name, cut+tail, "", exited(0)); got.Outcome != agented.OutcomeFailed || got.Reason == "" {
					t.Errorf("%s: exit 0 after %q is %s %q", name, cut+tail, got.Outcome, got.Reason)
				}
			}
		}
		if got := readAll(t, name, out, "", exited(1)); got.Outcome != agented.OutcomeFailed || !strings.Contains(got.Reason, "exited with code 1") || got.Text != "the answer" {
			t.Errorf("%s: a result and exit 1 is %s %q with text %q", name, got.Outcome, got.Reason, got.Text)
		}
		killed := agented.Exit{Cause: agented.CauseExit, Signal: "SIGKILL"}
		if got := readAll(t, name, out, "", killed); got.Outcome != agented.OutcomeFailed || !strings.Contains(got.Reason, "SIGKILL") {
			t.Errorf("%s: a result and SIGKILL is %s %q", name, got.Outcome, got.Reason)
		}
	}
}

func TestResult_cause_takes_precedence(t *testing.T) {
	t.Parallel()
	zero := 0
	for cause, want := range map[agented.Cause]agented.Outcome{
		agented.CauseTimeout: agented.OutcomeTimeout, agented.CauseSilence: agented.OutcomeTimeout, agented.CauseCancelled: agented.OutcomeCancelled,
		agented.CauseOutputCap: agented.OutcomeFailed, agented.CauseDiskFull: agented.OutcomeTransient, agented.CauseDiskLimit: agented.OutcomeFailed, agented.CauseNoStart: agented.OutcomeFailed,
		agented.CauseShutdown: agented.OutcomeInterrupted, agented.CauseLost: agented.OutcomeInterrupted,
	} {
		for name, out := range good {
			got := readAll(t, name, out, "", agented.Exit{Cause: cause, Code: &zero})
			if got.Outcome != want || !strings.Contains(got.Reason, "had already returned its result") || got.Text != "the answer" {
				t.Errorf("%s, %s: %s %q %q", name, cause, got.Outcome, got.Reason, got.Text)
			}
			got = readAll(t, name, "", "", agented.Exit{Cause: cause, Detail: "the detail."})
			if got.Outcome != want || got.Reason != "the detail" {
				t.Errorf("%s, %s without output: %s %q", name, cause, got.Outcome, got.Reason)
			}
		}
		if got := readAll(t, "command", "x\n", "", agented.Exit{Cause: cause, Code: &zero}); got.Outcome != want || got.Reason == "" {
			t.Errorf("command, %s: %s %q", cause, got.Outcome, got.Reason)
		}
	}
}

func TestReader_garbage_lines(t *testing.T) {
	t.Parallel()
	garbage := []string{
		"", "npm warn something", `{"type":`, `{"type":17}`, `{"type":"unknown_thing","x":[1,2]}`, `[]`, `null`, `"result"`, "\x00\xff\xfe", "{}",
		`{"type":"result_not"}`, strings.Repeat("x", 3<<20), `{"type":"assistant","message":"not an object"}`, `{"type":"message","role":3}`,
		`{"type":"item.completed","item":[]}`, `{"type":"tool_use","part":"x"}`,
	}
	for name, out := range good {
		want := readAll(t, name, out, "", exited(0))
		r := reader(t, name)
		for line := range strings.Lines(out) {
			for _, g := range garbage {
				r.Line(agented.Stdout, []byte(g))
				r.Line(agented.Stderr, []byte(g))
			}
			r.Line(agented.Stdout, []byte(strings.TrimSuffix(line, "\n")))
		}
		if diff := cmp.Diff(want, r.Result(exited(0), now)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestReader_key_order_and_types(t *testing.T) {
	t.Parallel()
	out := `{"total_cost_usd":"free","usage":[],"permission_denials":null,"is_error":false,"result":"the answer","errors":{},"subtype":"success","session_id":7,"type":"result"}`
	got := readAll(t, "claude", out, "", exited(0))
	if got.Outcome != agented.OutcomeSuccess || got.Text != "the answer" || got.Usage.Known() {
		t.Errorf("%+v", got)
	}
}

func TestResult_five_megabyte_answer(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789äöü\n", 400_000) // 6.8 MB
	text, err := json.Marshal(long)
	if err != nil {
		t.Fatal(err)
	}
	for name, out := range good {
		got := readAll(t, name, strings.ReplaceAll(out, `"the answer"`, string(text)), "", exited(0))
		if got.Outcome != agented.OutcomeSuccess || len(got.Text) > agented.MaxResult || len(got.Text) < agented.MaxResult-200 {
			t.Errorf("%s: %s, %d bytes of text", name, got.Outcome, len(got.Text))
		}
		if !utf8.ValidString(got.Text) || !strings.HasSuffix(got.Text, "the log contains the whole text)") {
			t.Errorf("%s: the text is cut badly: %q", name, got.Text[len(got.Text)-80:])
		}
	}
}

func TestReader_bounded_memory(t *testing.T) {
	const rounds = 4_000
	for name, lines := range map[string][]string{
		"claude": {
			`{"type":"assistant","message":{"content":[{"type":"text","text":"` + strings.Repeat("x", 1000) + `"},{"type":"tool_use","id":"t%d","name":"Bash","input":{"command":"rm %d"}}]}}`,
			`{"type":"system","subtype":"permission_denied","tool_name":"Bash","tool_use_id":"t%d"}`,
		},
		"codex":    {`{"type":"item.completed","item":{"id":"i%d","type":"command_execution","status":"declined","command":"c"}}`, `{"type":"error","message":"%d"}`},
		"gemini":   {`{"type":"tool_use","tool_name":"write_file","tool_id":"t%d"}`, `{"type":"tool_result","tool_id":"t%d","status":"error","error":{"type":"tool_not_registered"}}`, `{"type":"message","role":"assistant","content":"` + strings.Repeat("y", 1000) + `"}`},
		"opencode": {`{"type":"text","part":{"text":"` + strings.Repeat("z", 1000) + `"}}`, `{"type":"tool_use","part":{"tool":"bash","callID":"c%d","state":{"status":"error","error":"unavailable tool"}}}`},
		"command":  {"line %d " + strings.Repeat("w", 1000)},
	} {
		r := reader(t, name)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range rounds {
			for _, l := range lines {
				r.Line(agented.Stdout, []byte(strings.ReplaceAll(l, "%d", fmt.Sprint(i))))
			}
			r.Line(agented.Stderr, []byte(fmt.Sprint("noise ", i)))
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 2<<20 {
			t.Errorf("%s keeps %d KiB after %d lines", name, grown>>10, rounds)
		}
		got := r.Result(exited(0), now)
		if len(got.DeniedTools) > 51 || len(got.Reason) > 600 || len(got.Text) > agented.MaxResult {
			t.Errorf("%s: %d denied, %d bytes of reason, %d of text", name, len(got.DeniedTools), len(got.Reason), len(got.Text))
		}
		runtime.KeepAlive(r)
	}
}

func TestResult_api_error_as_success(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]agented.Outcome{
		429: agented.OutcomeRateLimited, 401: agented.OutcomeAuth, 403: agented.OutcomeAuth, 529: agented.OutcomeTransient, 500: agented.OutcomeTransient, 404: agented.OutcomeFailed, 402: agented.OutcomeRateLimited,
	} {
		out := fmt.Sprintf(`{"type":"result","subtype":"success","is_error":true,"api_error_status":%d,"result":"it said so"}`, status)
		for _, code := range []int{0, 1} {
			got := readAll(t, "claude", out, "", exited(code))
			if got.Outcome != want || !strings.Contains(got.Reason, `"it said so"`) {
				t.Errorf("%d, exit %d: %s %q", status, code, got.Outcome, got.Reason)
			}
		}
	}
	// An older version reports no status.
	out := `{"type":"result","subtype":"success","is_error":true,"terminal_reason":"completed","result":"API Error: 529 {\"type\":\"error\"}"}`
	if got := readAll(t, "claude", out, "", exited(1)); got.Outcome != agented.OutcomeTransient {
		t.Errorf("%+v", got)
	}
}

func TestClaude_usage_of_run(t *testing.T) {
	t.Parallel()
	line := `{"type":"result","subtype":"success","result":"x","total_cost_usd":0.1505,"usage":{"input_tokens":5,"output_tokens":6,"cache_read_input_tokens":7,"cache_creation_input_tokens":8}%s}`
	since := `,"model_usage_since_last_result":{"a":{"inputTokens":10,"outputTokens":20,"cacheReadInputTokens":30,"cacheCreationInputTokens":40,"costUSD":0.04},"b":{"inputTokens":1,"costUSD":0.01}}`
	n := func(v int64) *int64 { return &v }
	d := func(v float64) *float64 { return &v }
	got := readAll(t, "claude", fmt.Sprintf(line, since), "", exited(0)).Usage
	want := agented.Usage{InputTokens: n(11), OutputTokens: n(20), CacheReadTokens: n(30), CacheWriteTokens: n(40), CostUSD: d(0.05)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("new (-want +got):\n%s", diff)
	}
	got = readAll(t, "claude", fmt.Sprintf(line, ""), "", exited(0)).Usage
	want = agented.Usage{InputTokens: n(5), OutputTokens: n(6), CacheReadTokens: n(7), CacheWriteTokens: n(8), CostUSD: d(0.1505)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("old (-want +got):\n%s", diff)
	}
}

func TestUsage_unknown(t *testing.T) {
	t.Parallel()
	for name, out := range good {
		if u := readAll(t, name, out, "", exited(0)).Usage; u.Known() {
			t.Errorf("%s: %+v", name, u)
		}
	}
	free := `{"type":"step_finish","part":{"reason":"stop","cost":0,"tokens":{"input":3,"output":4}}}`
	if u := readAll(t, "opencode", openCodeGood+free, "", exited(0)).Usage; u.CostUSD != nil || u.InputTokens == nil || *u.InputTokens != 3 {
		t.Errorf("a model without a price costs %+v", u)
	}
}

func TestCodex_warnings(t *testing.T) {
	t.Parallel()
	out := `{"type":"item.completed","item":{"type":"error","message":"Model metadata for x not found"}}` + "\n" + `{"type":"error","message":"Reconnecting... 1/5 (429)"}` + "\n" + codexGood
	if got := readAll(t, "codex", out, "Reading additional input from stdin...\n", exited(0)); got.Outcome != agented.OutcomeSuccess || got.Reason != "" {
		t.Errorf("%+v", got)
	}
}

func TestLimit_reset_time(t *testing.T) {
	t.Parallel()
	resets := now.Add(90 * time.Minute)
	claude := fmt.Sprintf(`{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":%d}}`+"\n"+`{"type":"result","subtype":"success","is_error":true,"api_error_status":429,"result":"limit"}`, resets.Unix())
	if got := readAll(t, "claude", claude, "", exited(1)); !got.RetryAfter.Equal(resets) || !strings.Contains(got.Reason, "2026-11-23 16:30:00 UTC") {
		t.Errorf("claude: %v %q", got.RetryAfter, got.Reason)
	}
	gemini := `{"type":"result","status":"error","error":{"message":"quota. Please retry in 3600.5s."}}`
	if got := readAll(t, "gemini", gemini, "", exited(173)); !got.RetryAfter.Equal(now.Add(time.Hour+500*time.Millisecond)) || got.Outcome != agented.OutcomeRateLimited {
		t.Errorf("gemini: %v %s", got.RetryAfter, got.Outcome)
	}
	openCode := `{"type":"error","error":{"name":"APIError","data":{"message":"slow down","statusCode":429,"responseHeaders":{"Retry-After":"30"}}}}`
	if got := readAll(t, "opencode", openCode, "", exited(1)); !got.RetryAfter.Equal(now.Add(30 * time.Second)) {
		t.Errorf("opencode: %v", got.RetryAfter)
	}
	for _, odd := range []string{"1e300", "-5", "12", `"soon"`} {
		line := strings.Replace(claude, fmt.Sprint(resets.Unix()), odd, 1)
		if got := readAll(t, "claude", line, "", exited(1)); !got.RetryAfter.IsZero() || got.Outcome != agented.OutcomeRateLimited {
			t.Errorf("resetsAt %s: %v", odd, got.RetryAfter)
		}
	}
}

func TestGemini_exit_codes(t *testing.T) {
	t.Parallel()
	for code, want := range map[int]agented.Outcome{41: agented.OutcomeAuth, 42: agented.OutcomeFailed, 53: agented.OutcomeFailed, 55: agented.OutcomeFailed, 1: agented.OutcomeFailed} {
		if got := readAll(t, "gemini", "", "", exited(code)); got.Outcome != want || got.Reason == "" {
			t.Errorf("exit %d: %s %q", code, got.Outcome, got.Reason)
		}
	}
	for code, want := range map[int]agented.Outcome{173: agented.OutcomeRateLimited, 145: agented.OutcomeAuth, 247: agented.OutcomeTransient, 244: agented.OutcomeTransient} {
		if got := readAll(t, "gemini", `{"type":"result","status":"error","error":{"message":"odd"}}`, "", exited(code)); got.Outcome != want {
			t.Errorf("exit %d: %s %q", code, got.Outcome, got.Reason)
		}
	}
}

func TestCommand_exit_code(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		exit   agented.Exit
		want   agented.Outcome
		reason string
	}{
		{exited(0), agented.OutcomeSuccess, ""},
		{exited(3), agented.OutcomeFailed, "exited with code 3"},
		{exited(127), agented.OutcomeFailed, "exited with code 127 (a program was not found)"},
		{agented.Exit{Cause: agented.CauseExit, Signal: "SIGSEGV"}, agented.OutcomeFailed, "ended by SIGSEGV"},
		{agented.Exit{Cause: agented.CauseExit, Signal: "SIGKILL"}, agented.OutcomeFailed, "ended by SIGKILL, which Agented did not send: the machine may have run out of memory"},
	} {
		got := readAll(t, "command", "one\ntwo\n\n", "not in the result\n", c.exit)
		if got.Outcome != c.want || got.Reason != c.reason || got.Text != "one\ntwo" {
			t.Errorf("%+v: %+v", c.exit, got)
		}
	}
	long := strings.Repeat("ä line of output\n", 5000) + "the end\n"
	got := readAll(t, "command", long, "", exited(0))
	if len(got.Text) > 4<<10 || !strings.HasSuffix(got.Text, "the end") || !strings.HasPrefix(got.Text, "ä line") {
		t.Errorf("%d bytes: %.40q", len(got.Text), got.Text)
	}
	if got := readAll(t, "command", strings.Repeat("ä", 5000), "", exited(0)); len(got.Text) > 4<<10 || !utf8.ValidString(got.Text) {
		t.Errorf("one long line: %d bytes, valid %v", len(got.Text), utf8.ValidString(got.Text))
	}
}

func TestReason_one_line(t *testing.T) {
	t.Parallel()
	nasty := "\x1b[91m\x1b[1mError: \x1b[0mbad\r\n\tthing\x07 " + strings.Repeat("long ", 1000)
	text, _ := json.Marshal(nasty)
	got := readAll(t, "opencode", `{"type":"error","error":{"name":"X","data":{"message":`+string(text)+`}}}`, "", exited(1))
	if len(got.Reason) > 600 || strings.ContainsAny(got.Reason, "\x1b\n\r\t\x07") || !strings.Contains(got.Reason, "Error: bad thing long") {
		t.Errorf("%q", got.Reason)
	}
}

func TestCodex_denied_tools(t *testing.T) {
	t.Parallel()
	stdout := `{"type":"item.completed","item":{"id":"i1","type":"command_execution","command":"echo > f","aggregated_output":"f: Read-only file system\n","exit_code":1,"status":"failed"}}` + "\n" +
		`{"type":"item.completed","item":{"id":"i2","type":"command_execution","command":"false","exit_code":1,"status":"failed"}}` + "\n" + codexGood
	stderr := "2026 ERROR codex_core::tools::router: error=patch rejected: read-only\n2026 ERROR codex_core::tools::router: error=approval policy is Never; reject command\n"
	want := []string{"command_execution: echo > f", "apply_patch: read-only", "exec_command: approval policy is Never; reject command"}
	got := readAll(t, "codex", stdout, stderr, exited(0))
	if diff := cmp.Diff(want, got.DeniedTools); diff != "" || got.Outcome != agented.OutcomeSuccess || !strings.Contains(got.Reason, "3 tool calls") {
		t.Errorf("%s %q\n%s", got.Outcome, got.Reason, diff)
	}
}

func TestDenials_unknown_tools(t *testing.T) {
	t.Parallel()
	gemini := `{"type":"tool_use","tool_name":"make_coffee","tool_id":"1"}` + "\n" + `{"type":"tool_result","tool_id":"1","status":"error","error":{"type":"tool_not_registered","message":"not found"}}` + "\n" + geminiGood
	if got := readAll(t, "gemini", gemini, "", exited(0)); len(got.DeniedTools) != 0 || got.Reason != "" {
		t.Errorf("gemini: %+v", got)
	}
	openCode := `{"type":"tool_use","part":{"tool":"invalid","callID":"1","state":{"status":"completed","input":{"tool":"make_coffee","error":"unavailable tool 'make_coffee'"}}}}` + "\n" + openCodeGood
	if got := readAll(t, "opencode", openCode, "", exited(0)); len(got.DeniedTools) != 0 || got.Reason != "" {
		t.Errorf("opencode: %+v", got)
	}
	asked := readAll(t, "opencode", openCodeGood, "\x1b[93m\x1b[1m! \x1b[0mpermission requested: bash (rm x); auto-rejecting\n", exited(0))
	if len(asked.DeniedTools) != 1 || asked.DeniedTools[0] != "bash (rm x)" {
		t.Errorf("opencode: %q", asked.DeniedTools)
	}
}

func TestResult_class_matches_outcome(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join("*", "testdata", "samples", "*.exit.json"))
	if err != nil || len(files) < 50 {
		t.Fatalf("%d samples (%v)", len(files), err)
	}
	for _, file := range files {
		stdout, stderr, exit := sample(t, file)
		name, _, _ := strings.Cut(filepath.Base(file), "-")
		got := readAll(t, name, stdout, stderr, exit)
		if got.Class != "" && got.Class.Outcome() != got.Outcome || got.Class == "" && got.Outcome == agented.OutcomeFailed {
			t.Errorf("%s: class %q and outcome %q", file, got.Class, got.Outcome)
		}
		if got.SessionGone != strings.Contains(file, "resume-bad") {
			t.Errorf("%s: session gone is %v", file, got.SessionGone)
		}
		if got.Limit.Class != "" && (got.Limit.Class != got.Class || got.Limit.Evidence == "") {
			t.Errorf("%s: %s has the limit %+v", file, got.Class, got.Limit)
		}
	}
}
