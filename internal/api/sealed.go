package api

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
)

// triggerETag returns the version of a trigger.
func triggerETag(t *agented.Trigger) string {
	secrets := make([]string, len(t.Webhooks))
	to := make([]agented.Address, len(t.Messages))
	for i, w := range t.Webhooks {
		secrets[i] = w.Secret
	}
	for i, m := range t.Messages {
		to[i] = m.To
	}
	return rest.ETag(t.ID, t.Name, t.Enabled, t.Spec, t.Schedules, t.Webhooks, secrets, t.Messages, to)
}

// agentETag returns the version of an agent.
func agentETag(a *agented.Agent) string {
	return rest.ETag(a.ID, a.Name, a.Role, a.Goals, a.Enabled, a.Spec)
}

// accountETag returns the version of an account, without its state.
func accountETag(a *agented.Account) string {
	return rest.ETag(a.ID, a.Name, a.Enabled, a.Order, a.MaxConcurrent, a.Config, a.Credentials)
}

// budgetETag returns the version of a budget, without what is spent.
func budgetETag(b *agented.Budget) string {
	return rest.ETag(b.ID, b.Name, b.Enabled, b.Scope, b.Target, b.Period, b.Limit, b.Hard, b.Pause, b.Warn)
}

// sameTrigger reports whether a change left a trigger unchanged.
func sameTrigger(a, b *agented.Trigger) bool {
	return a.Name == b.Name && a.Enabled == b.Enabled && sameSpec(&a.Spec, &b.Spec) && sameJSON(a.Schedules, b.Schedules) &&
		sameJSON(a.Messages, b.Messages) && sameJSON(a.Webhooks, b.Webhooks) &&
		slices.EqualFunc(a.Webhooks, b.Webhooks, func(a, b agented.Webhook) bool { return a.Secret == b.Secret })
}

// sameAgent reports whether a change left an agent unchanged.
func sameAgent(a, b *agented.Agent) bool { return sameJSON(a, b) && sameSpec(&a.Spec, &b.Spec) }

// sameSpec compares variables and rules for notifications exactly: an empty one differs from none.
func sameSpec(a, b *agented.Spec) bool {
	return sameJSON(a, b) && maps.EqualFunc(a.Notify, b.Notify, slices.Equal[[]string]) && maps.EqualFunc(a.Env, b.Env, func(x, y *string) bool {
		return x == nil && y == nil || x != nil && y != nil && *x == *y
	})
}

// sameJSON reports whether two values are stored as the same JSON. An empty
// list, object or text equals an absent one, since API responses contain it and
// files often omit it.
func sameJSON(a, b any) bool {
	plain := func(v any) (out any, ok bool) {
		text, err := json.Marshal(v)
		if err != nil || json.Unmarshal(text, &out) != nil {
			return nil, false
		}
		return withoutEmpty(out), true
	}
	x, ok := plain(a)
	y, also := plain(b)
	return ok && also && reflect.DeepEqual(x, y)
}

// withoutEmpty returns decoded JSON without its empty members.
func withoutEmpty(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if value = withoutEmpty(value); value == nil {
				delete(v, key)
			} else {
				v[key] = value
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		for i := range v {
			v[i] = withoutEmpty(v[i])
		}
		if len(v) == 0 {
			return nil
		}
	case string:
		if v == "" {
			return nil
		}
	}
	return v
}
