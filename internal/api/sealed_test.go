package api

import (
	"encoding/json"
	"testing"

	"github.com/agented/agented"
)

func TestSameTrigger(t *testing.T) {
	t.Parallel()
	base := func() *agented.Trigger {
		value := "sealed"
		return &agented.Trigger{
			Name: "x", Enabled: true, Spec: agented.Spec{Backend: "command", Command: []string{"true"}, Env: map[string]*string{"A": &value, "B": nil}},
			Schedules: []agented.Schedule{{Cron: "0 2 * * 0"}},
			Webhooks:  []agented.Webhook{{ID: "whk-1", Match: json.RawMessage(`{"events": ["push"]}`), Secret: "s"}},
		}
	}
	for name, c := range map[string]struct {
		change func(*agented.Trigger)
		same   bool
	}{
		"nothing": {func(*agented.Trigger) {}, true},
		"empty lists": {func(t *agented.Trigger) {
			t.Spec.Paths, t.Spec.Args, t.Spec.Fallback = []string{}, []string{}, []agented.Choice{}
		}, true},
		"spaces of JSON":   {func(t *agented.Trigger) { t.Webhooks[0].Match = json.RawMessage(`{"events":["push"]}`) }, true},
		"command":          {func(t *agented.Trigger) { t.Spec.Command = []string{"true", ""} }, false},
		"number":           {func(t *agented.Trigger) { t.Spec.MaxConcurrent = 2 }, false},
		"schedule":         {func(t *agented.Trigger) { t.Schedules = nil }, false},
		"secret":           {func(t *agented.Trigger) { t.Webhooks[0].Secret = "other" }, false},
		"value":            {func(t *agented.Trigger) { other := "other"; t.Spec.Env["A"] = &other }, false},
		"variable removed": {func(t *agented.Trigger) { delete(t.Spec.Env, "B") }, false},
		"variable emptied": {func(t *agented.Trigger) { empty := ""; t.Spec.Env["B"] = &empty }, false},
		"match":            {func(t *agented.Trigger) { t.Webhooks[0].Match = json.RawMessage(`{"events":["push","ping"]}`) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := base()
			c.change(b)
			if sameTrigger(base(), b) != c.same {
				t.Errorf("same: %v, want %v", !c.same, c.same)
			}
		})
	}
}
