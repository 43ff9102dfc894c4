package manifest

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/cron"
	"github.com/agented/agented/internal/webhook"
)

// legacyScheduleFields are the trigger fields with which the Python version configured a schedule.
var legacyScheduleFields = []string{"schedule_type", "schedule_time", "schedule_day", "schedule_timezone", "cron_expression"}

// convertSchedules converts the schedules of a trigger file to the format of the API, and returns
// one note per conversion.
func convertSchedules(body map[string]any) (notes []string, err error) {
	var list []any
	switch v := body["schedules"].(type) {
	case nil:
	case []any:
		list = v
	default:
		return nil, agented.Errorf(agented.Invalid, "schedules must be a list")
	}
	if hasLegacy(body) {
		if body["schedules"] != nil {
			return nil, agented.Errorf(agented.Invalid, "schedules and the legacy fields (%s) are both set: keep one of them", strings.Join(legacyScheduleFields, ", "))
		}
		item := map[string]any{}
		for _, f := range legacyScheduleFields {
			if v, ok := body[f]; ok {
				item[f] = v
				delete(body, f)
			}
		}
		list = []any{item}
		body["schedules"] = list
	}
	for i, item := range list {
		s, ok := item.(map[string]any)
		if !ok {
			continue // the server reports what is wrong with it
		}
		for _, own := range []string{"description", "next_due_at", "next_run_at"} {
			delete(s, own) // accept the output of `trigger show`
		}
		if !hasLegacy(s) {
			continue
		}
		note, err := convertSchedule(s)
		if err != nil {
			return nil, agented.Errorf(agented.Invalid, "schedules.%d: %s", i, agented.Message(err))
		}
		if note != "" {
			notes = append(notes, note)
		}
	}
	return notes, nil
}

func hasLegacy(body map[string]any) bool {
	for _, f := range legacyScheduleFields {
		if v, ok := body[f]; ok && v != nil {
			return true
		}
	}
	return false
}

// convertSchedule converts one schedule in place.
func convertSchedule(s map[string]any) (note string, err error) {
	text := func(name string) string { v, _ := s[name].(string); return v }
	old := cron.Old{Type: text("schedule_type"), Time: text("schedule_time"), Cron: text("cron_expression")}
	switch day := s["schedule_day"].(type) {
	case nil:
	case float64:
		if day != float64(int(day)) {
			return "", agented.Errorf(agented.Invalid, "schedule_day: must be a whole number")
		}
		old.Day = int(day)
	default:
		return "", agented.Errorf(agented.Invalid, "schedule_day: must be a number")
	}
	spec, note, err := old.Rewrite()
	if err != nil {
		return "", err
	}
	if zone := text("schedule_timezone"); zone != "" {
		s["zone"] = zone
	}
	for _, f := range legacyScheduleFields {
		delete(s, f)
	}
	s["cron"] = spec
	return note, nil
}

// legacyWebhookFields are the trigger fields with which the Python version configured webhooks.
var legacyWebhookFields = []string{"match_field_path", "match_field_value", "text_field_path", "detection_keyword", "webhook_secret"}

// convertWebhooks converts the legacy webhook fields of a trigger file, and returns one note per
// conversion.
func convertWebhooks(body map[string]any) (notes []string, err error) {
	source, _ := body["trigger_source"].(string)
	text := map[string]string{}
	var named []string // legacy fields that configure a webhook
	for _, f := range legacyWebhookFields {
		v, is := body[f]
		delete(body, f)
		if !is || v == nil || v == "" {
			continue // exports contain every field
		}
		s, ok := v.(string)
		if !ok {
			s = strings.TrimSuffix(fmt.Sprintf("%v", v), ".0")
		}
		text[f] = s
		if f != "text_field_path" { // has a default value
			named = append(named, f)
		}
	}
	switch {
	case source == "manual" || source == "scheduled":
		delete(body, "trigger_source")
		if len(named) > 0 {
			notes = append(notes, fmt.Sprintf("trigger_source %q fires on no webhooks, so %s was ignored: add a webhook if webhooks should fire the trigger", source, strings.Join(named, ", ")))
		}
		return notes, nil
	case source != "" && source != "webhook" && source != "github":
		return nil, agented.Errorf(agented.Invalid, "trigger_source: must be webhook, github, manual or scheduled")
	case source == "" && len(named) == 0:
		return nil, nil
	}
	delete(body, "trigger_source")
	if body["webhooks"] != nil {
		return nil, agented.Errorf(agented.Invalid, "webhooks and the legacy fields (trigger_source, %s) are both set: keep one of them", strings.Join(legacyWebhookFields, ", "))
	}
	if source == "" {
		source = "webhook"
	}
	match, notes, err := webhook.FromOldRules(webhook.OldRules{
		Source: source, MatchFieldPath: text["match_field_path"], MatchFieldValue: text["match_field_value"],
		TextFieldPath: text["text_field_path"], DetectionKeyword: text["detection_keyword"],
	})
	if err != nil {
		return nil, err
	}
	item := map[string]any{"source": source, "match": match}
	if source == "webhook" {
		item["auth"] = map[string]any{"kind": "hmac"}
		notes = append(notes, "deliveries now need a signature in X-Webhook-Signature-256; they are accepted at the trigger's own address and, as before, at /")
	}
	if s := text["webhook_secret"]; s != "" {
		item["secret"] = s
	}
	// The value goes through JSON so that it can be compared with the server's answer.
	enc, err := json.Marshal([]any{item})
	if err != nil {
		return nil, err
	}
	var list any
	if err := json.Unmarshal(enc, &list); err != nil {
		return nil, err
	}
	body["webhooks"] = list
	return notes, nil
}
