package agentcli_test

import (
	"math"
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
)

const (
	claudeInit  = `{"type":"system","subtype":"init","session_id":"s1","model":"claude-opus-4-6"}` + "\n"
	claudeEmpty = `{"type":"result","subtype":"error_during_execution","is_error":true,"num_turns":0,"total_cost_usd":0,"errors":["only prompt commands are supported in streaming mode"]}` + "\n"
)

func TestSeveralResults(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		out   string
		cost  float64
		input int64
		text  string
	}{
		"with what each adds": {
			`{"type":"result","subtype":"success","result":"one","total_cost_usd":0.05,"usage":{"input_tokens":100,"output_tokens":5},"model_usage_since_last_result":{"m":{"inputTokens":100,"outputTokens":5,"costUSD":0.05}}}` + "\n" +
				`{"type":"result","subtype":"success","result":"two","total_cost_usd":0.11,"usage":{"input_tokens":120,"output_tokens":5},"model_usage_since_last_result":{"m":{"inputTokens":120,"outputTokens":5,"costUSD":0.06}}}` + "\n",
			0.11, 220, "two",
		},
		"with a running total": {
			`{"type":"result","subtype":"success","result":"one","total_cost_usd":0.05,"usage":{"input_tokens":100,"output_tokens":5}}` + "\n" +
				`{"type":"result","subtype":"success","result":"two","total_cost_usd":0.11,"usage":{"input_tokens":120,"output_tokens":5}}` + "\n" +
				`{"type":"result","subtype":"success","result":"three","total_cost_usd":0.12,"usage":{"input_tokens":10,"output_tokens":5}}` + "\n",
			0.12, 230, "three",
		},
		"with a total that starts again": {
			`{"type":"result","subtype":"success","result":"one","total_cost_usd":0.05,"usage":{"input_tokens":100,"output_tokens":5}}` + "\n" +
				`{"type":"result","subtype":"success","result":"two","total_cost_usd":0.03,"usage":{"input_tokens":20,"output_tokens":5}}` + "\n",
			0.08, 120, "two",
		},
		"then an empty good one": {
			`{"type":"result","subtype":"success","result":"one","total_cost_usd":0.05,"usage":{"input_tokens":100,"output_tokens":5}}` + "\n" +
				`{"type":"result","subtype":"success","result":"","total_cost_usd":0.05,"usage":{"input_tokens":0,"output_tokens":0}}` + "\n",
			0.05, 100, "one",
		},
		"then an empty error": {
			`{"type":"result","subtype":"success","result":"one","total_cost_usd":0.05,"usage":{"input_tokens":100,"output_tokens":5}}` + "\n" + claudeEmpty,
			0.05, 100, "one",
		},
		"printed twice": {
			strings.Repeat(`{"type":"result","subtype":"success","result":"one","uuid":"u1","total_cost_usd":0.05,"usage":{"input_tokens":100,"output_tokens":5}}`+"\n", 2),
			0.05, 100, "one",
		},
	} {
		got := readAll(t, "claude", claudeInit+c.out, "", exited(0))
		if got.Outcome != agented.OutcomeSuccess || got.Text != c.text {
			t.Errorf("%s: %s %q %q", what, got.Outcome, got.Text, got.Reason)
		}
		m := newMeter("claude", "", agentcli.DefaultPrices())
		for line := range strings.Lines(claudeInit + c.out) {
			m.Line(agented.Stdout, []byte(line))
		}
		for who, u := range map[string]agented.Usage{"reader": got.Usage, "meter": m.Usage()} {
			if u.CostUSD == nil || math.Abs(*u.CostUSD-c.cost) > 1e-9 || u.InputTokens == nil || *u.InputTokens != c.input {
				t.Errorf("%s, %s: %+v", what, who, u)
			}
		}
	}
}

func TestSeveralResultsErrors(t *testing.T) {
	t.Parallel()
	good := `{"type":"result","subtype":"success","result":"one","total_cost_usd":0.05,"usage":{"input_tokens":100,"output_tokens":5}}` + "\n"
	said := `{"type":"assistant","message":{"content":[{"type":"text","text":"more"}]}}` + "\n"
	for what, c := range map[string]struct {
		out  string
		exit int
		want agented.Outcome
	}{
		"empty error and its exit code": {good + claudeEmpty, 1, agented.OutcomeSuccess},
		"empty error and a crash":       {good + claudeEmpty, 134, agented.OutcomeFailed},
		"empty error alone":             {claudeEmpty, 1, agented.OutcomeFailed},
		"error after more work":         {good + said + claudeEmpty, 1, agented.OutcomeFailed},
		"API error after it":            {good + `{"type":"result","subtype":"success","is_error":true,"api_error_status":429,"result":"API Error: 429"}` + "\n", 1, agented.OutcomeRateLimited},
		"empty error, then a good one":  {claudeEmpty + good, 0, agented.OutcomeSuccess},
	} {
		if got := readAll(t, "claude", claudeInit+c.out, "", exited(c.exit)); got.Outcome != c.want {
			t.Errorf("%s: %s %q", what, got.Outcome, got.Reason)
		}
	}
}

// The meter of a run that was interrupted after its first result also counts the rest.
func TestMeterAfterResult(t *testing.T) {
	t.Parallel()
	m := newMeter("claude", "", agentcli.DefaultPrices())
	for _, l := range []string{
		claudeInit,
		`{"type":"assistant","message":{"id":"a","model":"claude-opus-4-6","usage":{"input_tokens":1000,"output_tokens":0}}}`,
		`{"type":"result","subtype":"success","result":"one","total_cost_usd":0.5,"usage":{"input_tokens":1000,"output_tokens":0}}`,
		`{"type":"assistant","message":{"id":"b","model":"claude-opus-4-6","usage":{"input_tokens":2000,"output_tokens":0}}}`,
	} {
		m.Line(agented.Stdout, []byte(l))
	}
	if u := m.Usage(); !m.Ahead() || math.Abs(*u.CostUSD-0.51) > 1e-9 || *u.InputTokens != 3000 || !u.Estimated {
		t.Errorf("%+v", u)
	}
}

func TestMeterUnpriced(t *testing.T) {
	t.Parallel()
	use := func(model string) lineMeter {
		m := newMeter("claude", "", agentcli.DefaultPrices())
		m.Line(agented.Stdout, []byte(`{"type":"assistant","message":{"id":"a","model":"`+model+`","usage":{"input_tokens":1000000,"output_tokens":0}}}`))
		return m
	}
	for model, want := range map[string]float64{
		"claude-opus-5-5": 5, "claude-opus-5-5-20261001": 5, "opus": 5, "us.anthropic.claude-sonnet-5-20260901-v1:0": 3, "claude-haiku-6": 1, "claude-novella-1": 15,
	} {
		m := use(model)
		if u := m.Usage(); u.CostUSD == nil || math.Abs(*u.CostUSD-want) > 1e-9 || !u.Estimated || m.Like() == "" || m.Unpriced() != "" {
			t.Errorf("%s: %+v as %q", model, u, m.Like())
		}
	}
	m := use("house-model")
	if u := m.Usage(); u.CostUSD != nil || m.Unpriced() != "house-model" {
		t.Errorf("%+v, %q", u, m.Unpriced())
	}
	if m := use("claude-opus-4-6"); m.Usage().CostUSD == nil || m.Like() != "" {
		t.Errorf("a model with a price is priced as %q", m.Like())
	}
}
