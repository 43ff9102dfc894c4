package manifest

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/term"
)

// Diff lists the fields in which wanted differs from now; now is nil for a new object.
func Diff(now, wanted map[string]any) []string {
	var out []string
	for _, field := range slices.Sorted(maps.Keys(wanted)) {
		want := wanted[field]
		have, is := now[field]
		switch {
		case field == "env":
			out = append(out, envDiff(have, want)...)
		case field == "schedules" && is && sameSchedules(have, want):
		case field == "webhooks":
			if !is {
				out = append(out, "+ webhooks: "+shownWebhooks(want))
			} else if !sameWebhooks(have, want) {
				out = append(out, "~ webhooks: "+shownWebhooks(want))
			}
		case !is:
			out = append(out, fmt.Sprintf("+ %s: %s", field, term.Compact(want)))
		case !reflect.DeepEqual(have, want):
			out = append(out, fmt.Sprintf("~ %s: %s → %s", field, term.Compact(have), term.Compact(want)))
		}
	}
	return out
}

// envDiff lists the variables that differ. A secret value is never printed, and is
// listed whenever it was written: the server does not return the one it has.
func envDiff(now, wanted any) []string {
	have, _ := now.(map[string]any)
	want, _ := wanted.(map[string]any)
	var out, hidden []string
	for _, name := range slices.Sorted(maps.Keys(want)) {
		old, there := have[name]
		value, plain := plainEnv(want[name])
		before, wasPlain := plainEnv(old)
		switch {
		case reflect.DeepEqual(old, want[name]) && there && (plain || want[name] == nil):
		case value == "***" && plain == wasPlain:
		case plain && wasPlain:
			out = append(out, fmt.Sprintf("~ env.%s: %s → %s", name, term.Compact(before), term.Compact(value)))
		case plain:
			out = append(out, fmt.Sprintf("%s env.%s: %s (not secret)", sign(there), name, term.Compact(value)))
		default:
			hidden = append(hidden, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if _, stays := want[name]; !stays {
			out = append(out, "- env."+name)
		}
	}
	if len(hidden) > 0 {
		out = append(out, "~ env: "+strings.Join(hidden, ", ")+" (values are hidden)")
	}
	return out
}

// plainEnv returns the value of a variable, and whether it is marked with
// secret: false. The value of one that is null is nil.
func plainEnv(v any) (value any, plain bool) {
	if long, ok := v.(map[string]any); ok {
		return long["value"], long["secret"] == false
	}
	return v, false
}

// sign begins the line of a field that is new or that changes.
func sign(there bool) string {
	if there {
		return "~"
	}
	return "+"
}

// sameSchedules reports whether the server's list matches the file. Fields that are missing from
// the file have their defaults; missing ids and anchors match any value.
func sameSchedules(have, wanted any) bool {
	read := func(v any) ([]agented.Schedule, bool) {
		items, ok := v.([]any)
		if v != nil && !ok {
			return nil, false
		}
		out := make([]agented.Schedule, len(items))
		for i, item := range items {
			out[i] = agented.Schedule{Enabled: true, WindowSeconds: agented.DefaultWindowSeconds}
			enc, err := json.Marshal(item)
			if err != nil || json.Unmarshal(enc, &out[i]) != nil {
				return nil, false // a local time; the server compares it
			}
			s := out[i].WithDefaults()
			s.Cron = strings.Join(strings.Fields(s.Cron), " ")
			out[i] = s
		}
		return out, true
	}
	a, okA := read(have)
	b, okB := read(wanted)
	if !okA || !okB || len(a) != len(b) {
		return false
	}
	for i := range a {
		if b[i].ID != "" && b[i].ID != a[i].ID || !a[i].Same(b[i]) {
			return false
		}
	}
	return true
}

// sameWebhooks reports whether a file matches the existing webhooks. The server hides secrets, so
// a secret in the file counts as a difference.
func sameWebhooks(have, wanted any) bool {
	read := func(v any) (out []map[string]any, ok bool) {
		items, ok := v.([]any)
		if v != nil && !ok {
			return nil, false
		}
		for _, item := range items {
			m, ok := item.(map[string]any)
			if !ok {
				return nil, false
			}
			full := map[string]any{"enabled": true, "supersede": false, "match": map[string]any{}, "auth": map[string]any{"kind": "github"}}
			maps.Copy(full, m)
			if s, is := full["secret"]; !is || s == "" {
				full["secret"] = "***"
			}
			delete(full, "id")
			out = append(out, full)
		}
		return out, true
	}
	a, okA := read(have)
	b, okB := read(wanted)
	for i := range min(len(a), len(b)) {
		switch s, is := b[i]["previous_secret"]; {
		case !is:
			delete(a[i], "previous_secret") // kept if the file does not contain it
		case s == "" || s == nil:
			delete(b[i], "previous_secret")
		}
	}
	return okA && okB && reflect.DeepEqual(a, b)
}

// shownWebhooks formats a list of webhooks for a diff, without secrets.
func shownWebhooks(v any) string {
	items, _ := v.([]any)
	return strconv.Itoa(len(items)) + " (secrets are hidden)"
}
