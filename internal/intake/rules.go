package intake

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/webhook"
)

// current returns the current rules. They are reloaded when a trigger has
// changed.
func (in *Intake) current() (*rules, error) {
	version := in.o.DB.HookVersion()
	if r := in.rules.Load(); r != nil && r.version == version {
		return r, nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if r := in.rules.Load(); r != nil && r.version == version {
		return r, nil
	}
	r, err := in.load()
	if err != nil {
		return nil, err
	}
	in.rules.Store(r)
	if in.o.SecretsChanged != nil {
		in.o.SecretsChanged()
	}
	return r, nil
}

// rule is one webhook of one trigger, prepared for evaluation.
type rule struct {
	trigger *agented.Trigger
	webhook agented.Webhook
	auth    webhook.Auth
	match   webhook.Match
	secret  string // its own secrets, one per line; empty for github: the server's
}

// proof identifies what verifies a call for the rule: rules with the same proof
// are verified once.
func (r *rule) proof() string { return string(r.webhook.Auth) + "\x00" + r.secret }

// rules is all webhooks at one version of the triggers.
type rules struct {
	version string
	trigger map[agented.TriggerID][]*rule
	github  []*rule
	generic []*rule // with signed calls: evaluated by POST /
	all     []*rule
	secrets []string
	own     bool // some github rule has its own secret
}

// load loads all webhooks and decrypts their secrets.
func (in *Intake) load() (*rules, error) {
	list, version, err := in.o.DB.HookTriggers(context.Background())
	if err != nil {
		return nil, err
	}
	out := &rules{version: version, trigger: map[agented.TriggerID][]*rule{}}
	for i := range list {
		t := &list[i]
		for _, w := range t.Webhooks {
			r := &rule{trigger: t, webhook: w}
			err := errors.Join(decode(w.Auth, &r.auth), decode(w.Match, &r.match))
			if w.Secret != "" && err == nil {
				if r.secret, err = in.o.Sealer.OpenWebhook(w.ID, w.Secret); err == nil && r.secret == "" {
					err = errors.New("the secret is empty")
				}
			}
			if err != nil {
				// Skip it, so that it admits no call; the server's secret must
				// not replace it.
				in.o.Log.Error("cannot use a webhook", "trigger", t.ID, "webhook", w.ID, "err", err)
				continue
			}
			out.secrets = append(out.secrets, webhook.SplitSecrets(r.secret)...)
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

// evaluate evaluates rules for an event. It returns one result for each trigger:
// that of the first webhook that fires, otherwise of the first one.
func (in *Intake) evaluate(list []*rule, e *webhook.Event) []ruleResult {
	own := in.o.Config().GitHubLogins
	var out []ruleResult
	place := map[agented.TriggerID]int{}
	for _, r := range list {
		v := webhook.MatchResult{Rule: "disabled", Reason: "the trigger is disabled"}
		switch {
		case !r.trigger.Enabled:
		case !r.webhook.Enabled:
			v.Reason = "the webhook is disabled"
		default:
			match := r.match
			if r.trigger.Spec.Workspace != nil || r.trigger.Spec.Agent != "" { // the agent's settings may include a workspace
				match = match.WithWorkspace()
			}
			v = webhook.Evaluate(match, e, own)
		}
		at, seen := place[r.trigger.ID]
		switch {
		case !seen:
			place[r.trigger.ID] = len(out)
			out = append(out, ruleResult{r, v})
		case v.Fires && !out[at].verdict.Fires:
			out[at] = ruleResult{r, v}
		case !v.Fires && !out[at].verdict.Fires && !strings.Contains(out[at].verdict.Reason, v.Reason) && len(out[at].verdict.Reason) < 2000:
			out[at].verdict.Reason += "; another webhook of the trigger: " + v.Reason
		}
	}
	return out
}

// ruleResult is the result of the webhooks of a trigger for an event.
type ruleResult struct {
	rule    *rule
	verdict webhook.MatchResult
}

// decode decodes stored JSON, of which an empty text is an empty object.
func decode(raw json.RawMessage, into any) error {
	if len(raw) == 0 {
		return nil
	}
	return json.Unmarshal(raw, into)
}
