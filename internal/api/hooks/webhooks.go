package hooks

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/webhook"
)

// masked stands for a secret in responses, and in an update for the stored one.
const masked = "***"

// maxWebhooks limits the webhooks of one trigger.
const maxWebhooks = 20

// WebhookView is a webhook in responses.
type WebhookView struct {
	ID        string         `json:"id" example:"whk-01jdc4q7zv8m3k2n5p6r7s8t9w"`
	Source    agented.Source `json:"source" enum:"github,webhook"`
	Enabled   bool           `json:"enabled"`
	Auth      webhook.Auth   `json:"auth" doc:"How a call proves that it is authentic"`
	Match     webhook.Match  `json:"match" doc:"Which calls fire the trigger"`
	Supersede bool           `json:"supersede" doc:"A newer event about the same pull request, issue or branch replaces pending and running executions"`
	Secret    string         `json:"secret" doc:"Never returned: *** stands for the secret; empty if there is none"`
	Previous  string         `json:"previous_secret,omitempty" doc:"Never returned: *** stands for a secret that is accepted in addition to secret"`
}

// WebhookFields are the fields of a webhook in requests. Omitted fields have
// their defaults.
type WebhookFields struct {
	ID        rest.Optional[string] `json:"id,omitzero" doc:"Id of an existing webhook of the trigger. Omitted: the webhook at the same index if it is of the same kind, or a new one"`
	Source    agented.Source        `json:"source" doc:"github: events at /hooks/github, signed by GitHub. webhook: any calls, at the trigger's own address"`
	Enabled   rest.Optional[bool]   `json:"enabled,omitzero" doc:"Default true"`
	Auth      *webhook.Auth         `json:"auth,omitempty" doc:"How a call proves that it is authentic. Required for source webhook; for github only to restrict addresses with allow"`
	Match     *webhook.Match        `json:"match,omitempty" doc:"Which calls fire the trigger. Default: all; for github all except pings and events of bots"`
	Supersede bool                  `json:"supersede,omitempty" doc:"A newer event about the same pull request, issue or branch replaces pending and running executions. Default false"`
	Secret    rest.Optional[string] `json:"secret,omitzero" doc:"The secret that signs calls. Omitted or ***: the stored one. For github, without a secret GITHUB_WEBHOOK_SECRET is used"`
	Previous  rest.Optional[string] `json:"previous_secret,omitzero" doc:"A second secret that is accepted while the sender is switched to the new one. ***: the stored one, or with a new secret the one that it replaces. Empty: none"`
}

// View returns the webhooks of a trigger, and the path that receives
// their calls.
func (h *Hooks) View(t *agented.Trigger) (views []WebhookView, address string) {
	views = make([]WebhookView, len(t.Webhooks))
	for i, w := range t.Webhooks {
		v := WebhookView{ID: w.ID, Source: w.Source, Enabled: w.Enabled, Supersede: w.Supersede}
		// Both were marshalled by the server.
		_ = json.Unmarshal(orEmpty(w.Auth), &v.Auth)
		_ = json.Unmarshal(orEmpty(w.Match), &v.Match)
		if w.Secret != "" {
			v.Secret = masked
		}
		if len(webhook.SplitSecrets(h.secretOf(&w))) > 1 {
			v.Previous = masked
		}
		views[i] = v
		if w.Source == agented.SourceWebhook {
			address = "/hooks/" + string(t.ID)
		} else if address == "" {
			address = "/hooks/github"
		}
	}
	return views, address
}

func orEmpty(raw json.RawMessage) []byte {
	if len(raw) == 0 {
		return []byte("{}")
	}
	return raw
}

// Apply replaces the webhooks of a trigger with those of a request and
// seals their secrets. Known entries keep their secrets.
func (h *Hooks) Apply(t *agented.Trigger, in rest.Optional[[]WebhookFields]) error {
	if !in.Set {
		return nil
	}
	before := t.Webhooks
	if len(in.Value) > maxWebhooks {
		return agented.InvalidFields([]agented.Field{{Path: "webhooks", Text: fmt.Sprintf("has too many entries: use at most %d", maxWebhooks)}})
	}
	var bad []agented.Field
	var out []agented.Webhook
	used := map[string]bool{}
	for i := range in.Value {
		w, wrong := h.oneWebhook(t, before, i, &in.Value[i], in.Value)
		if used[w.ID] {
			wrong = append(wrong, agented.Field{Path: "id", Text: "is repeated: omit it for a new webhook"})
		}
		used[w.ID] = true
		for _, f := range wrong {
			bad = append(bad, agented.Field{Path: fmt.Sprintf("webhooks.%d.%s", i, f.Path), Text: f.Text})
		}
		out = append(out, w)
	}
	t.Webhooks = out
	return agented.InvalidFields(bad)
}

// oneWebhook converts the entry at index i into a webhook.
func (h *Hooks) oneWebhook(t *agented.Trigger, before []agented.Webhook, i int, f *WebhookFields, all []WebhookFields) (agented.Webhook, []agented.Field) {
	var bad []agented.Field
	no := func(path, format string, args ...any) {
		bad = append(bad, agented.Field{Path: path, Text: fmt.Sprintf(format, args...)})
	}
	w := agented.Webhook{Source: f.Source, Enabled: true, Supersede: f.Supersede}
	f.Enabled.Into(&w.Enabled, true)
	auth := webhook.Auth{}
	if f.Auth != nil {
		auth = *f.Auth
	}
	switch f.Source {
	case agented.SourceGitHub:
		if auth.Kind == "" {
			auth.Kind = webhook.KindGitHub
		}
		if auth.Kind != webhook.KindGitHub {
			no("auth.kind", "must be github or omitted for source github")
		}
	case agented.SourceWebhook:
		if f.Auth == nil {
			no("auth", "is required for source webhook: set how a call proves that it is authentic, for example {\"kind\":\"hmac\"}")
		}
	default:
		known := []string{string(agented.SourceGitHub), string(agented.SourceWebhook)}
		text := "must be github or webhook"
		if near := agented.Nearest(string(f.Source), known); near != "" {
			text += fmt.Sprintf("; did you mean %q?", near)
		}
		no("source", "%s", text)
	}
	if f.Auth != nil && len(bad) == 0 {
		for _, b := range auth.Validate() {
			no("auth."+b.Path, "%s", b.Text)
		}
	}
	match := webhook.Match{}
	if f.Match != nil {
		match = *f.Match
		for _, b := range match.Validate(auth.Kind) {
			no("match."+b.Path, "%s", b.Text)
		}
	}
	var err error
	if w.Auth, err = json.Marshal(auth); err != nil {
		no("auth", "cannot be stored")
	}
	if w.Match, err = json.Marshal(match); err != nil {
		no("match", "cannot be stored")
	}

	old := findWebhook(before, i, f, &w, all)
	switch {
	case old != nil:
		w.ID = old.ID
	case f.ID.Set && !f.ID.Null:
		no("id", "is not one of this trigger's webhooks: omit it for a new one")
	default:
		w.ID = agented.NewID("whk", h.o.Now())
	}
	bad = append(bad, h.setSecrets(&w, old, f, auth, len(bad) == 0)...)
	return w, bad
}

// setSecrets sets a webhook's secrets from a request, sealed. Omitted secrets
// are those of the webhook that it replaces. They are validated if the rest of
// the request is valid.
func (h *Hooks) setSecrets(w, old *agented.Webhook, f *WebhookFields, auth webhook.Auth, check bool) (bad []agented.Field) {
	no := func(path, text string) { bad = append(bad, agented.Field{Path: path, Text: text}) }
	stored := h.secretOf(old)
	had := append(webhook.SplitSecrets(stored), "", "")
	isKept := func(o rest.Optional[string]) bool { return o.Set && !o.Null && o.Value == masked }
	current, previous := "", ""
	switch keep := !f.Secret.Set || isKept(f.Secret); {
	case keep && old == nil && f.Secret.Set:
		no("secret", "*** keeps a stored secret, but this webhook has none: send the secret")
		return bad
	case keep && old != nil && old.Secret != "" && stored == "":
		w.Secret = old.Secret // it cannot be decrypted: keep it
		return bad
	case keep:
		current = had[0]
	default:
		f.Secret.Into(&current, "")
	}
	changed := current != had[0]
	switch {
	case isKept(f.Previous) && changed:
		previous = had[0]
	case isKept(f.Previous), !f.Previous.Set && !changed:
		previous = had[1]
	default:
		f.Previous.Into(&previous, "")
	}
	if previous == current {
		previous = ""
	}
	if check && (f.Source != agented.SourceGitHub || current != "") {
		for _, b := range auth.ValidateSecret(current) {
			no(b.Path, b.Text)
		}
	}
	if check && previous != "" {
		if current == "" {
			no("previous_secret", "requires secret: send secret, or remove previous_secret")
		}
		for _, b := range auth.ValidateSecret(previous) {
			no("previous_secret", b.Text)
		}
	}
	switch plain := webhook.JoinSecrets(current, previous); {
	case len(bad) > 0 || plain == "":
	case plain == stored:
		w.Secret = old.Secret // writing it again changes nothing
	default:
		w.Secret = h.o.Sealer.SealWebhook(w.ID, plain)
	}
	return bad
}

// findWebhook returns the stored webhook that an entry of a request refers to,
// or nil for a new one: the one with its id, otherwise the one at the same
// index if no other entry refers to it and it is of the same kind.
func findWebhook(before []agented.Webhook, i int, f *WebhookFields, w *agented.Webhook, all []WebhookFields) *agented.Webhook {
	if f.ID.Set && !f.ID.Null {
		at := slices.IndexFunc(before, func(o agented.Webhook) bool { return o.ID == f.ID.Value })
		if at < 0 {
			return nil
		}
		return &before[at]
	}
	if i >= len(before) || before[i].Source != w.Source || kindOfAuth(before[i].Auth) != kindOfAuth(w.Auth) {
		return nil
	}
	if slices.ContainsFunc(all, func(o WebhookFields) bool { return o.ID.Set && o.ID.Value == before[i].ID }) {
		return nil
	}
	return &before[i]
}

func kindOfAuth(raw json.RawMessage) webhook.Kind {
	var a webhook.Auth
	_ = json.Unmarshal(orEmpty(raw), &a)
	return a.Kind
}

// secretOf returns the plain secret of a webhook, or "" if it has none or
// cannot be decrypted.
func (h *Hooks) secretOf(w *agented.Webhook) string {
	if w == nil || w.Secret == "" {
		return ""
	}
	plain, err := h.o.Sealer.OpenWebhook(w.ID, w.Secret)
	if err != nil {
		return ""
	}
	return plain
}
