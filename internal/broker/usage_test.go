package broker

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
)

// tokens formats a usage as input, output, cache reads and cache writes.
func tokens(u agented.Usage) string {
	text := func(n *int64) string {
		if n == nil {
			return "-"
		}
		return fmt.Sprint(*n)
	}
	return strings.Join([]string{text(u.InputTokens), text(u.OutputTokens), text(u.CacheReadTokens), text(u.CacheWriteTokens)}, " ")
}

// answers are answers of the APIs with their model and usage.
var answers = []struct{ name, kind, body, model, want string }{
	{
		"anthropic_stream", "text/event-stream; charset=utf-8",
		"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg\",\"model\":\"claude-a\",\"content\":[],\"usage\":{\"input_tokens\":10,\"cache_creation_input_tokens\":3,\"cache_read_input_tokens\":4,\"output_tokens\":1,\"cache_creation\":{\"ephemeral_5m_input_tokens\":3}}}}\n\n" +
			"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"\\\"usage\\\":{\\\"input_tokens\\\":9999}\"}}\n\n" +
			"event: message_delta\r\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":25}}\r\n\r\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
		"claude-a", "10 25 4 3",
	},
	{
		"anthropic_json", "application/json",
		`{"model":"claude-a","content":[{"type":"tool_use","input":{"usage":{"input_tokens":9999},"model":"other"}}],"usage":{"input_tokens":10,"output_tokens":25}}`,
		"claude-a", "10 25 - -",
	},
	{
		"openai_responses", "text/event-stream",
		"data: {\"type\":\"response.created\",\"response\":{\"model\":\"gpt-a\",\"usage\":null}}\n\ndata: {\"type\":\"response.completed\",\"response\":{\"model\":\"gpt-a\",\"output\":[{\"usage\":{\"input_tokens\":9}}],\"usage\":{\"input_tokens\":100,\"input_tokens_details\":{\"cached_tokens\":40},\"output_tokens\":7,\"output_tokens_details\":{\"reasoning_tokens\":3},\"total_tokens\":107}}}\n\n",
		"gpt-a", "60 7 40 -",
	},
	{
		"openai_chat", "text/event-stream",
		"data: {\"model\":\"gpt-a\",\"choices\":[],\"usage\":null}\n\ndata:{\"model\":\"gpt-a\",\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":2,\"prompt_tokens_details\":{\"cached_tokens\":0}}}\n\ndata: [DONE]\n\n",
		"gpt-a", "8 2 0 -",
	},
	{
		"gemini_stream", "text/event-stream",
		"data: {\"candidates\":[{}],\"usageMetadata\":{\"promptTokenCount\":50,\"candidatesTokenCount\":1},\"modelVersion\":\"gemini-a\"}\r\n\r\ndata: {\"usageMetadata\":{\"promptTokenCount\":50,\"cachedContentTokenCount\":20,\"candidatesTokenCount\":5,\"thoughtsTokenCount\":6,\"toolUsePromptTokenCount\":2},\"modelVersion\":\"gemini-a\"}\r\n\r\n",
		"gemini-a", "32 11 20 -",
	},
	{
		"gemini_list", "application/json",
		`[{"usageMetadata":{"promptTokenCount":50,"candidatesTokenCount":1},"modelVersion":"gemini-a"},{"usageMetadata":{"promptTokenCount":50,"candidatesTokenCount":5},"modelVersion":"gemini-a"}]`,
		"gemini-a", "50 5 - -",
	},
	{"wrong_types", "application/json", `{"model":"m","usage":{"input_tokens":"ten","output_tokens":-4,"cache_read_input_tokens":3}}`, "m", "- - 3 -"},
	{"no_usage", "application/json", `{"data":[{"id":"m","usage":{"input_tokens":1}}]}`, "", "- - - -"},
	{"cut", "text/event-stream", "data: {\"message\":{\"model\":\"claude-a\",\"usage\":{\"input_tokens\":10,\"output_tokens\":1}}}\n\ndata: {\"usage\":{\"outp", "claude-a", "10 1 - -"},
}

func TestScanner_usage(t *testing.T) {
	t.Parallel()
	for _, c := range answers {
		for _, size := range []int{1, 7, len(c.body)} {
			s := newScanner(c.kind)
			for rest := []byte(c.body); len(rest) > 0; rest = rest[min(size, len(rest)):] {
				s.write(rest[:min(size, len(rest))])
			}
			if got := tokens(s.total); s.model != c.model || got != c.want {
				t.Errorf("%s in pieces of %d: model %q, usage %s; want %q, %s", c.name, size, s.model, got, c.model, c.want)
			}
		}
	}
	for _, kind := range []string{"", "text/html", "application/octet-stream"} {
		if newScanner(kind) != nil {
			t.Errorf("%q has a scanner", kind)
		}
	}
}

// kept is how much memory a scanner holds, in bytes.
func kept(s *scanner) int { return cap(s.doc.text) + cap(s.doc.capture) + len(s.model) }

func TestScanner_memory_is_bounded(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no_line_end": "x", "string": `{"model":"` + strings.Repeat("m", 100), "usage": `{"usage":{"a":[`, "nesting": `{"message":{"a":[{`, "spaces": " ",
	} {
		for _, kind := range []string{"text/event-stream", "application/json"} {
			s := newScanner(kind)
			s.write([]byte("data: "))
			s.write([]byte(text))
			for range 1 << 10 {
				s.write([]byte(strings.Repeat(text[len(text)-1:], 1<<10)))
			}
			if n := kept(s); n > 4*maxUsage {
				t.Errorf("%s as %s: %d bytes are kept", name, kind, n)
			}
		}
	}
}

func FuzzScanner(f *testing.F) {
	for _, c := range answers {
		f.Add(c.kind == "application/json", []byte(c.body), 3)
	}
	f.Fuzz(func(t *testing.T, isJSON bool, body []byte, size int) {
		kind := "text/event-stream"
		if isJSON {
			kind = "application/json"
		}
		whole, pieces := newScanner(kind), newScanner(kind)
		whole.write(body)
		size = max(1, min(size, len(body)))
		for rest := body; len(rest) > 0; rest = rest[min(size, len(rest)):] {
			pieces.write(rest[:min(size, len(rest))])
		}
		if whole.model != pieces.model || tokens(whole.total) != tokens(pieces.total) {
			t.Errorf("%q %s, in pieces %q %s", whole.model, tokens(whole.total), pieces.model, tokens(pieces.total))
		}
		if n := kept(whole); n > 4*maxUsage || len(whole.model) > maxName {
			t.Errorf("%d bytes are kept", n)
		}
		for _, n := range []*int64{whole.total.InputTokens, whole.total.OutputTokens, whole.total.CacheReadTokens} {
			if n != nil && *n < 0 {
				t.Errorf("negative usage %s", tokens(whole.total))
			}
		}
	})
}

func TestResetTime(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name   string
		header http.Header
		want   time.Time
	}{
		{"none", http.Header{}, time.Time{}},
		{"seconds", http.Header{"Retry-After": {"90"}}, now.Add(90 * time.Second)},
		{"date", http.Header{"Retry-After": {now.Add(time.Hour).Format(http.TimeFormat)}}, now.Add(time.Hour)},
		{"unified", http.Header{"Retry-After": {"5"}, "Anthropic-Ratelimit-Unified-Status": {"rejected"}, "Anthropic-Ratelimit-Unified-Reset": {fmt.Sprint(now.Add(3 * time.Hour).Unix())}}, now.Add(3 * time.Hour)},
		{"allowed", http.Header{"Anthropic-Ratelimit-Unified-Status": {"allowed"}, "Anthropic-Ratelimit-Unified-Reset": {fmt.Sprint(now.Add(3 * time.Hour).Unix())}}, time.Time{}},
		{"past", http.Header{"Retry-After": {now.Add(-time.Hour).Format(http.TimeFormat)}}, time.Time{}},
		{"absurd", http.Header{"Retry-After": {"99999999999"}}, time.Time{}},
		{"nonsense", http.Header{"Retry-After": {"NaN"}}, time.Time{}},
	} {
		if got := resetTime(c.header, now); !got.Equal(c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
