package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/webhook"
)

// WebhookPurpose is what the secrets of webhooks are sealed for.
const WebhookPurpose = "webhook secret"

// maxWebhooks bounds the webhooks of one trigger.
const maxWebhooks = 20

// WebhookView is a webhook as the API shows it.
type WebhookView struct {
	ID        string         `json:"id" example:"whk-01jdc4q7zv8m3k2n5p6r7s8t9w"`
	Source    agented.Source `json:"source" enum:"github,webhook"`
	Enabled   bool           `json:"enabled"`
	Auth      webhook.Auth   `json:"auth" doc:"How a call proves that it is genuine"`
	Match     webhook.Match  `json:"match" doc:"Which calls fire"`
	Supersede bool           `json:"supersede" doc:"A newer event about the same pull request, issue or branch replaces what waits or runs"`
	Secret    string         `json:"secret" doc:"Never shown: *** stands for one; empty when there is none"`
}

// WebhookFields is a webhook in requests. Fields that are left out have their
// defaults.
type WebhookFields struct {
	ID        optional[string] `json:"id,omitzero" doc:"Which of the trigger's webhooks this is. Left out: the one at the same place if it is of the same kind, or a new one"`
	Source    agented.Source   `json:"source" doc:"github: events at /hooks/github, signed by GitHub. webhook: any calls, at an address of the trigger's own"`
	Enabled   optional[bool]   `json:"enabled,omitzero" doc:"Default true"`
	Auth      *webhook.Auth    `json:"auth,omitempty" doc:"How a call proves that it is genuine. Required for source webhook; for github only to name addresses in allow"`
	Match     *webhook.Match   `json:"match,omitempty" doc:"Which calls fire. Default: all of them, for github but pings and what bots do"`
	Supersede bool             `json:"supersede,omitempty" doc:"A newer event about the same pull request, issue or branch replaces what waits or runs. Default false"`
	Secret    optional[string] `json:"secret,omitzero" doc:"What calls are signed with. Left out or ***: the one that the webhook has. github without one uses GITHUB_WEBHOOK_SECRET"`
}

// viewWebhooks is the list of a trigger, and the address at which it takes
// calls.
func viewWebhooks(t *agented.Trigger) (views []WebhookView, address string) {
	views = make([]WebhookView, len(t.Webhooks))
	for i, w := range t.Webhooks {
		v := WebhookView{ID: w.ID, Source: w.Source, Enabled: w.Enabled, Supersede: w.Supersede}
		// Both were marshalled by us.
		_ = json.Unmarshal(orEmpty(w.Auth), &v.Auth)
		_ = json.Unmarshal(orEmpty(w.Match), &v.Match)
		if w.Secret != "" {
			v.Secret = kept
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

// applyWebhooks replaces the webhooks of a trigger by those of a request and
// seals their secrets. Entries that are known keep theirs.
func (s *Server) applyWebhooks(t *agented.Trigger, in optional[[]WebhookFields]) error {
	if !in.set {
		return nil
	}
	before := t.Webhooks
	if len(in.value) > maxWebhooks {
		return agented.InvalidFields([]agented.Field{{Path: "webhooks", Text: fmt.Sprintf("has too many entries: use at most %d", maxWebhooks)}})
	}
	var bad []agented.Field
	var out []agented.Webhook
	used := map[string]bool{}
	for i := range in.value {
		w, wrong := s.oneWebhook(t, before, i, &in.value[i], in.value)
		if used[w.ID] {
			wrong = append(wrong, agented.Field{Path: "id", Text: "is there twice: leave it out for a new webhook"})
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

// oneWebhook turns the entry at i into a webhook.
func (s *Server) oneWebhook(t *agented.Trigger, before []agented.Webhook, i int, f *WebhookFields, all []WebhookFields) (agented.Webhook, []agented.Field) {
	var bad []agented.Field
	no := func(path, format string, args ...any) {
		bad = append(bad, agented.Field{Path: path, Text: fmt.Sprintf(format, args...)})
	}
	w := agented.Webhook{Source: f.Source, Enabled: true, Supersede: f.Supersede}
	f.Enabled.into(&w.Enabled, true)
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
			no("auth.kind", "must be github, or left out, for source github")
		}
	case agented.SourceWebhook:
		if f.Auth == nil {
			no("auth", "is required for source webhook: say how a call proves that it is genuine, for example {\"kind\":\"hmac\"}")
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
	case f.ID.set && !f.ID.null:
		no("id", "is not one of this trigger's webhooks: leave it out for a new one")
	default:
		w.ID = agented.NewID("whk", s.now())
	}
	plain := s.secretOf(old)
	switch keep := !f.Secret.set || !f.Secret.null && f.Secret.value == kept; {
	case keep && old != nil:
		w.Secret = old.Secret
	case keep && f.Secret.set:
		no("secret", "*** keeps a secret, and this webhook has none: send the secret")
		return w, bad
	default:
		value := ""
		f.Secret.into(&value, "")
		if value != plain {
			w.Secret = ""
			if plain = value; value != "" {
				w.Secret = s.o.Key.SealText(WebhookPurpose, w.ID, value)
			}
		} else if old != nil {
			w.Secret = old.Secret // writing it again changes nothing
		}
	}
	server := f.Source == agented.SourceGitHub && plain == ""
	if len(bad) == 0 && !server && !(old != nil && w.Secret == old.Secret && w.Secret != "" && plain == "") {
		for _, b := range auth.ValidateSecret(plain) {
			no(b.Path, "%s", b.Text)
		}
	}
	return w, bad
}

// findWebhook is the webhook that an entry of a request means, nil for a new
// one: that of its id, else the one at the same place if no other entry names it
// and it is of the same kind.
func findWebhook(before []agented.Webhook, i int, f *WebhookFields, w *agented.Webhook, all []WebhookFields) *agented.Webhook {
	if f.ID.set && !f.ID.null {
		at := slices.IndexFunc(before, func(o agented.Webhook) bool { return o.ID == f.ID.value })
		if at < 0 {
			return nil
		}
		return &before[at]
	}
	if i >= len(before) || before[i].Source != w.Source || kindOfAuth(before[i].Auth) != kindOfAuth(w.Auth) {
		return nil
	}
	if slices.ContainsFunc(all, func(o WebhookFields) bool { return o.ID.set && o.ID.value == before[i].ID }) {
		return nil
	}
	return &before[i]
}

func kindOfAuth(raw json.RawMessage) webhook.Kind {
	var a webhook.Auth
	_ = json.Unmarshal(orEmpty(raw), &a)
	return a.Kind
}

// secretOf is the plain secret of a webhook, empty when it has none or cannot be
// opened.
func (s *Server) secretOf(w *agented.Webhook) string {
	if w == nil || w.Secret == "" {
		return ""
	}
	plain, err := s.o.Key.OpenText(WebhookPurpose, w.ID, w.Secret)
	if err != nil {
		return ""
	}
	return plain
}

// hookRule is one webhook of one trigger, ready to be asked.
type hookRule struct {
	trigger *agented.Trigger
	webhook agented.Webhook
	auth    webhook.Auth
	match   webhook.Match
	secret  string // its own; empty for github: the server's
}

// proof names what verifies a call for the rule: rules with the same are asked
// once.
func (r *hookRule) proof() string { return string(r.webhook.Auth) + "\x00" + r.secret }

// hookRules is all webhooks as they were at one version of the triggers.
type hookRules struct {
	version string
	trigger map[agented.TriggerID][]*hookRule
	github  []*hookRule
	generic []*hookRule // whose calls are signed: what POST / asks
	all     []*hookRule
	secrets []string
	own     bool // some github rule has a secret of its own
}

// rules reads all webhooks and opens their secrets.
func (h *hooks) load() (*hookRules, error) {
	s := h.s
	list, version, err := s.o.DB.HookTriggers(h.ctx)
	if err != nil {
		return nil, err
	}
	out := &hookRules{version: version, trigger: map[agented.TriggerID][]*hookRule{}}
	for i := range list {
		t := &list[i]
		for _, w := range t.Webhooks {
			r := &hookRule{trigger: t, webhook: w}
			err := errors.Join(json.Unmarshal(orEmpty(w.Auth), &r.auth), json.Unmarshal(orEmpty(w.Match), &r.match))
			if w.Secret != "" && err == nil {
				if r.secret, err = s.o.Key.OpenText(WebhookPurpose, w.ID, w.Secret); err == nil && r.secret == "" {
					err = errors.New("the secret is empty")
				}
			}
			if err != nil {
				// Left out, it lets nobody in; with the server's secret it might.
				s.o.Log.Error("a webhook cannot be used", "trigger", t.ID, "webhook", w.ID, "err", err)
				continue
			}
			if r.secret != "" {
				out.secrets = append(out.secrets, r.secret)
			}
			out.all = append(out.all, r)
			out.trigger[t.ID] = append(out.trigger[t.ID], r)
			switch {
			case w.Source == agented.SourceGitHub:
				out.github = append(out.github, r)
				out.own = out.own || r.secret != ""
			case r.auth.Kind != webhook.KindUnsigned:
				out.generic = append(out.generic, r)
			}
		}
	}
	return out, nil
}

// judge asks rules about an event: one answer for each trigger, of the first
// webhook that fires, else of the first that said no.
func (s *Server) judge(rules []*hookRule, e *webhook.Event) []judged {
	own := s.live.Load().config.GitHubLogins
	var out []judged
	place := map[agented.TriggerID]int{}
	for _, r := range rules {
		v := webhook.Verdict{Rule: "disabled", Reason: "the trigger is disabled"}
		switch {
		case !r.trigger.Enabled:
		case !r.webhook.Enabled:
			v.Reason = "the webhook is disabled"
		default:
			v = webhook.Evaluate(r.match, e, own)
		}
		at, seen := place[r.trigger.ID]
		switch {
		case !seen:
			place[r.trigger.ID] = len(out)
			out = append(out, judged{r, v})
		case v.Fires && !out[at].verdict.Fires:
			out[at] = judged{r, v}
		case !v.Fires && !out[at].verdict.Fires && !strings.Contains(out[at].verdict.Reason, v.Reason) && len(out[at].verdict.Reason) < 2000:
			out[at].verdict.Reason += "; another webhook of it: " + v.Reason
		}
	}
	return out
}

// judged is what the webhooks of a trigger say about an event.
type judged struct {
	rule    *hookRule
	verdict webhook.Verdict
}
