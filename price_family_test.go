package agented_test

import (
	"testing"

	"github.com/agented/agented"
)

func TestNearestPrice(t *testing.T) {
	t.Parallel()
	p := &agented.Prices{Models: []agented.Price{
		{Model: "claude-opus-4-6*", Input: 5, Output: 25},
		{Model: "claude-opus-4-1*", Input: 15, Output: 75},
		{Model: "claude-sonnet-4-5*", Input: 3, Output: 15},
		{Model: "gpt-5.4", Input: 2.5, Output: 15},
		{Model: "gpt-5.4-mini", Input: 0.75, Output: 4.5},
		{Model: "gpt-5", Input: 1.25, Output: 10},
		{Model: "gemini-2.5-pro", Input: 1.25, Output: 10},
		{Model: "gemini-2.5-flash", Input: 0.3, Output: 2.5},
		{Model: "gemini-2.5-flash-lite", Input: 0.1, Output: 0.4},
	}}
	for model, want := range map[string]string{
		"claude-opus-5-5": "claude-opus-4-6*", "claude-3-opus-20240229": "claude-opus-4-1*", "opus": "claude-opus-4-6*", "sonnet[1m]": "claude-sonnet-4-5*",
		"eu.anthropic.claude-opus-5-v1:0": "claude-opus-4-6*", "claude-unheard-of": "claude-opus-4-1*", "gpt-6": "gpt-5.4", "gpt-5.1-codex": "gpt-5", "openai/gpt-6-mini": "gpt-5.4-mini",
		"gemini-3.1-pro-preview": "gemini-2.5-pro", "gemini-3-flash": "gemini-2.5-flash", "gemini-3.1-flash-lite": "gemini-2.5-flash-lite",
	} {
		if got, ok := p.Nearest(model); !ok || got.Model != want {
			t.Errorf("%s is nearest to %q, want %q", model, got.Model, want)
		}
	}
	for _, model := range []string{"", "o3", "llama-4", "house-model", "gemini-embedding", "gpt-6-nano"} {
		if got, ok := p.Nearest(model); ok {
			t.Errorf("%q is taken for %s", model, got.Model)
		}
	}
}
