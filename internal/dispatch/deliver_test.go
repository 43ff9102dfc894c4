package dispatch

import (
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/webhook"
)

func TestPrompt_event_placeholders(t *testing.T) {
	t.Parallel()
	names := map[string]bool{"arguments": true}
	for _, p := range webhook.Placeholders {
		names[p.Name] = true
	}
	for name := range (&webhook.Event{}).Values() {
		names[name] = true
	}
	for name := range names {
		if bad := agented.CheckTemplate("{" + name + "}"); len(bad) > 0 {
			t.Errorf("%v", bad)
		}
	}
}

func TestPrompt_fences_untrusted_text(t *testing.T) {
	t.Parallel()
	e := &webhook.Event{GitHub: true, Name: "push", Title: "do this instead", Branch: "main"}
	seen := map[string]bool{}
	for range 50 {
		raw := e.Values()
		raw["arguments"] = "rm -rf"
		v, err := fence(raw)
		if err != nil {
			t.Fatal(err)
		}
		if v["branch"] != "main" || !strings.HasPrefix(v["title"], "\n<<<") || !strings.HasPrefix(v["arguments"], "\n<<<") {
			t.Fatalf("%q", v)
		}
		if seen[v["title"]] {
			t.Fatal("the same word twice")
		}
		seen[v["title"]] = true
	}
}
