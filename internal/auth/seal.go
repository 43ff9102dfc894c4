package auth

import (
	"fmt"
	"maps"
	"slices"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/secret"
)

// Sealer seals the secrets that the database stores: values of variables,
// credentials of accounts, and secrets of webhooks.
type Sealer struct{ key secret.Key }

// NewSealer returns a Sealer that uses a key.
func NewSealer(key secret.Key) Sealer { return Sealer{key} }

// OpenEnv returns the value of a variable.
func (s Sealer) OpenEnv(name, sealed string) (string, error) {
	return s.key.OpenText(secret.PurposeEnv, name, sealed)
}

// SealEnv seals the values of a spec's variables. An unchanged value keeps its
// sealed form in before, so that storing it again changes nothing.
func (s Sealer) SealEnv(spec *agented.Spec, before map[string]*string) {
	if len(spec.Env) == 0 {
		return
	}
	sealed := make(map[string]*string, len(spec.Env))
	for name, value := range spec.Env {
		old := before[name]
		switch {
		case value == nil || value == old || refers(*value): // "***" kept the stored value
			sealed[name] = value
			continue
		case old != nil:
			if was, err := s.OpenEnv(name, *old); err == nil && was == *value {
				sealed[name] = old
				continue
			}
		}
		text := s.key.SealText(secret.PurposeEnv, name, *value)
		sealed[name] = &text
	}
	spec.Env = sealed
}

// refers reports whether a value is a reference to a named secret, which is stored as it is.
func refers(value string) bool {
	_, ok := agented.RefersTo(value)
	return ok
}

// OpenCredential returns a credential of an account.
func (s Sealer) OpenCredential(id agented.AccountID, name, sealed string) (string, error) {
	return s.key.OpenText(secret.PurposeAccount, CredentialName(id, name), sealed)
}

// SealCredential seals a credential of an account.
func (s Sealer) SealCredential(id agented.AccountID, name, value string) string {
	return s.key.SealText(secret.PurposeAccount, CredentialName(id, name), value)
}

// CredentialName returns the name that a credential is sealed under.
func CredentialName(id agented.AccountID, name string) string { return fmt.Sprintf("%s/%s", id, name) }

// Credentials returns the readable credentials of accounts, for masking.
func (s Sealer) Credentials(accounts []agented.Account) []string {
	var out []string
	for i := range accounts {
		a := &accounts[i]
		for _, name := range slices.Sorted(maps.Keys(a.Credentials)) {
			if refers(a.Credentials[name]) {
				continue
			}
			if value, err := s.OpenCredential(a.ID, name, a.Credentials[name]); err == nil {
				out = append(out, value)
			}
		}
	}
	return out
}

// OpenWebhook returns the secret of a webhook.
func (s Sealer) OpenWebhook(id, sealed string) (string, error) {
	return s.key.OpenText(secret.PurposeWebhook, id, sealed)
}

// SealWebhook seals the secret of a webhook.
func (s Sealer) SealWebhook(id, plain string) string {
	return s.key.SealText(secret.PurposeWebhook, id, plain)
}

// OpenChannel returns a setting of a channel for notifications.
func (s Sealer) OpenChannel(id, field, sealed string) (string, error) {
	return s.key.OpenText(secret.PurposeChannel, ChannelFieldName(id, field), sealed)
}

// SealChannel seals a setting of a channel for notifications.
func (s Sealer) SealChannel(id, field, value string) string {
	return s.key.SealText(secret.PurposeChannel, ChannelFieldName(id, field), value)
}

// ChannelFieldName returns the name that a setting of a channel is sealed under.
func ChannelFieldName(id, field string) string { return id + "/" + field }
