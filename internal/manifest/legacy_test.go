package manifest

import (
	"strings"
	"testing"
)

// An export of the Python version contains every field, most of them null.
func TestConvertWebhooks_exports(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		body  map[string]any
		hooks bool
		note  string
		err   string
	}{
		{"scheduled, all null", map[string]any{"trigger_source": "scheduled", "webhook_secret": nil, "match_field_path": nil, "text_field_path": "text"}, false, "", ""},
		{"manual, empty", map[string]any{"trigger_source": "manual", "webhook_secret": "", "detection_keyword": ""}, false, "", ""},
		{"no source, null", map[string]any{"webhook_secret": nil}, false, "", ""},
		{"scheduled with a secret", map[string]any{"trigger_source": "scheduled", "webhook_secret": "s"}, false, "was ignored", ""},
		{"webhook", map[string]any{"trigger_source": "webhook", "webhook_secret": "a secret"}, true, "every call", ""},
		{"no source with a keyword", map[string]any{"detection_keyword": "deploy"}, true, "", ""},
		{"unknown source", map[string]any{"trigger_source": "slack", "webhook_secret": nil}, false, "", "trigger_source"},
	} {
		notes, err := convertWebhooks(c.body)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if (c.body["webhooks"] != nil) != c.hooks {
			t.Errorf("%s: webhooks %v", c.name, c.body["webhooks"])
		}
		all := strings.Join(notes, "; ")
		if c.note == "" && !c.hooks && all != "" || !strings.Contains(all, c.note) {
			t.Errorf("%s: notes %q", c.name, all)
		}
		for _, f := range append(legacyWebhookFields, "trigger_source") {
			if _, is := c.body[f]; is {
				t.Errorf("%s: %s is still there", c.name, f)
			}
		}
	}
}
