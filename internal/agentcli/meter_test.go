package agentcli_test

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
)

func testPrices(t *testing.T) *agented.Prices {
	t.Helper()
	p, err := agented.ParsePrices([]byte(`{"date":"2030-01-01","source":"a test","models":[
		{"model":"claude-test*","input":1,"output":10,"cache_read":0.1,"cache_write":2},
		{"model":"claude-test-big","input":100,"output":1000},
		{"model":"gpt-test","input":1,"output":10,"cache_read":0.5}]}`))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func meter(t *testing.T, backend, model string, lines ...string) lineMeter {
	t.Helper()
	m := newMeter(backend, model, testPrices(t))
	for _, l := range lines {
		m.Line(agented.Stdout, []byte(l))
	}
	return m
}

func wantCost(t *testing.T, m lineMeter, want float64, estimated bool) {
	t.Helper()
	u := m.Usage()
	if u.CostUSD == nil || math.Abs(*u.CostUSD-want) > 1e-9 || u.Estimated != estimated {
		t.Errorf("it cost %v (%+v), want %v", u.CostUSD, u, want)
	}
}

func TestMeter_prices_messages_once(t *testing.T) {
	t.Parallel()
	lines := []string{
		`{"type":"system","subtype":"init","session_id":"s","model":"claude-test-1"}`,
		`{"type":"assistant","message":{"id":"a","model":"claude-test-1","usage":{"input_tokens":1000,"output_tokens":1,"cache_read_input_tokens":10000,"cache_creation_input_tokens":500}}}`,
		`{"type":"assistant","message":{"id":"a","model":"claude-test-1","usage":{"input_tokens":1000,"output_tokens":200,"cache_read_input_tokens":10000,"cache_creation_input_tokens":500}}}`,
	}
	one := (1000 + 200*10 + 10000*0.1 + 500*2) / 1e6
	m := meter(t, agented.BackendClaude, "", lines...)
	wantCost(t, m, one, true)
	if m.Session() != "s" || m.Model() != "claude-test-1" || *m.Usage().OutputTokens != 200 {
		t.Errorf("%s %s %+v", m.Session(), m.Model(), m.Usage())
	}
	lines = append(lines, `{"type":"assistant","message":{"id":"b","model":"claude-test-big","usage":{"input_tokens":10,"output_tokens":10}}}`)
	wantCost(t, meter(t, agented.BackendClaude, "", lines...), one+(10*100+10*1000)/1e6, true)
	lines = append(lines, `{"type":"assistant","message":{"id":"c","model":"<synthetic>","usage":{"input_tokens":0,"output_tokens":0}}}`)
	wantCost(t, meter(t, agented.BackendClaude, "", lines...), one+(10*100+10*1000)/1e6, true)
	blind := append(lines, `{"type":"assistant","message":{"id":"d","model":"nobody-knows","usage":{"input_tokens":10,"output_tokens":10}}}`)
	if u := meter(t, agented.BackendClaude, "", blind...).Usage(); u.CostUSD != nil || *u.InputTokens != 1020 {
		t.Errorf("a model without a price: %+v", u)
	}
	// At the end, the CLI's own figures take precedence.
	end := append(lines, `{"type":"result","subtype":"success","total_cost_usd":0.5,"usage":{"input_tokens":7,"output_tokens":7}}`)
	wantCost(t, meter(t, agented.BackendClaude, "", end...), 0.5, false)
}

func TestMeter_other_clis(t *testing.T) {
	t.Parallel()
	m := meter(t, agented.BackendOpenCode, "openai/gpt-test",
		`{"type":"step_finish","sessionID":"ses_1","part":{"tokens":{"input":1000,"output":10,"reasoning":5,"cache":{"read":0,"write":0}},"cost":0.25}}`,
		`{"type":"step_finish","sessionID":"ses_1","part":{"tokens":{"input":1000,"output":10,"reasoning":5,"cache":{"read":0,"write":0}},"cost":0.25}}`)
	wantCost(t, m, 0.5, false)
	m = meter(t, agented.BackendOpenCode, "openai/gpt-test", `{"type":"step_finish","part":{"tokens":{"input":1000,"output":10,"reasoning":0,"cache":{"read":0,"write":0}},"cost":0}}`)
	wantCost(t, m, 0.0011, true)
	m = meter(t, agented.BackendCodex, "gpt-test", `{"type":"thread.started","thread_id":"x"}`, `{"type":"turn.completed","usage":{"input_tokens":3000,"cached_input_tokens":2000,"output_tokens":10}}`)
	if u := m.Usage(); m.Session() != "x" || !u.CumulativeSession || *u.InputTokens != 1000 || u.CostUSD != nil {
		t.Errorf("codex: %s %+v: what its session costs as a whole is not what the attempt costs", m.Session(), u)
	}
	m = meter(t, agented.BackendGemini, "", `{"type":"init","session_id":"g","model":"gpt-test"}`, `{"type":"result","status":"success","stats":{"input":1000,"output_tokens":10,"cached":0}}`)
	wantCost(t, m, 0.0011, true)
	if u := meter(t, agented.BackendCommand, "", `{"type":"assistant"}`).Usage(); u.Known() {
		t.Errorf("a command: %+v", u)
	}
}

func TestMeter_agrees_with_reader(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*/testdata/samples/*.out")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d samples, %v", len(files), err)
	}
	known := 0
	for _, file := range files {
		name, _, _ := strings.Cut(filepath.Base(file), "-")
		b, ok := registry.ByName(name)
		if !ok {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		reader, m := lineReader{b, agentcli.NewReader(b)}, newMeter(name, "", testPrices(t))
		for line := range bytes.Lines(text) {
			reader.Line(agented.Stdout, bytes.TrimRight(line, "\n"))
			m.Line(agented.Stdout, bytes.TrimRight(line, "\n"))
		}
		want, got := reader.Result(agented.Exit{Cause: agented.CauseExit}, time.Now()).Usage, m.Usage()
		if !want.Known() {
			continue
		}
		known++
		for what, pair := range map[string][2]*int64{"input": {want.InputTokens, got.InputTokens}, "output": {want.OutputTokens, got.OutputTokens}} {
			if pair[0] != nil && (pair[1] == nil || *pair[0] != *pair[1]) {
				t.Errorf("%s: %s is %v, want %v", file, what, pair[1], *pair[0])
			}
		}
		if want.CostUSD != nil && (got.CostUSD == nil || math.Abs(*want.CostUSD-*got.CostUSD) > 1e-9) {
			t.Errorf("%s: cost %v, want %v", file, got.CostUSD, *want.CostUSD)
		}
	}
	if known < 8 {
		t.Errorf("only %d samples say what was used", known)
	}
}

func TestPrices_dated_and_partial(t *testing.T) {
	t.Parallel()
	p := agentcli.DefaultPrices()
	if _, err := time.Parse(time.DateOnly, p.Date); err != nil || p.Source == "" || len(p.Models) < 20 {
		t.Errorf("%q %q %d", p.Date, p.Source, len(p.Models))
	}
	n := func(v int64) *int64 { return &v }
	u := agented.Usage{InputTokens: n(1e6), OutputTokens: n(1e6), CacheReadTokens: n(1e6)}
	for model, want := range map[string]float64{"claude-sonnet-4-5-20250929": 18.3, "anthropic/claude-sonnet-4-5": 18.3, "GPT-5": 11.375} {
		if got, ok := p.Cost(model, u); !ok || math.Abs(got-want) > 1e-9 {
			t.Errorf("%s: %v %v, want %v", model, got, ok, want)
		}
	}
	for _, model := range []string{"", "gpt-9", "gpt-5-ultra", "claude", "fake/fake-model"} {
		if got, ok := p.Cost(model, u); ok {
			t.Errorf("%q costs %v", model, got)
		}
	}
	if _, ok := p.Cost("gpt-5", agented.Usage{InputTokens: n(1)}); ok {
		t.Error("a cost without the output")
	}
	var none *agented.Prices
	if _, ok := none.Cost("gpt-5", u); ok {
		t.Error("a cost without a list")
	}
	own, err := agented.ParsePrices([]byte(`{"date":"2031-01-01","source":"ours","models":[{"model":"gpt-5","input":2,"output":2,"cache_read":2}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := own.Merge(p).Cost("gpt-5", u); got != 6 {
		t.Errorf("our own price: %v", got)
	}
	if _, ok := own.Merge(p).Cost("gemini-2.5-pro", u); !ok {
		t.Error("the list behind ours is gone")
	}
	for _, bad := range []string{"", "[]", `{"models":[{"model":""}]}`, `{"models":[{"model":"a*b"}]}`, `{"models":[{"model":"a","input":-1}]}`, `{"models":[{"model":"a","input":1e9}]}`} {
		if p, err := agented.ParsePrices([]byte(bad)); err == nil {
			t.Errorf("%s is taken as %+v", bad, p)
		}
	}
}

func FuzzAMeterTakesAnyBytes(f *testing.F) {
	f.Add("claude", []byte(`{"type":"assistant","message":{"id":"a","usage":{"input_tokens":-1,"output_tokens":1e300}}}`))
	f.Add("opencode", []byte(`{"type":"step_finish","part":{"tokens":{},"cost":"x"}}`))
	f.Fuzz(func(t *testing.T, name string, text []byte) {
		m := newMeter(name, "claude-test-1", agentcli.DefaultPrices())
		for line := range bytes.Lines(text) {
			m.Line(agented.Stdout, line)
		}
		if u := m.Usage(); u.CostUSD != nil && (math.IsNaN(*u.CostUSD) || *u.CostUSD < 0) {
			t.Errorf("%+v", u)
		}
	})
}
