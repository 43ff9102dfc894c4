// Package vault stores named secrets and hands their values to attempts: it seals what is
// stored, reads files and runs commands at the start of an attempt, checks the scope, and
// knows which values must be masked.
package vault

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
)

// Options configure a Vault.
type Options struct {
	DB     *store.DB
	Key    secret.Key
	Lookup func(name string) (string, bool) // reads the server's environment; nil: nothing
	Now    func() time.Time                 // nil means time.Now

	CommandTimeout time.Duration // how long the command of a secret may take; 0 means 15 seconds
}

// Vault manages named secrets. Its methods are safe for concurrent use.
type Vault struct{ o Options }

// New returns a Vault.
func New(o Options) *Vault {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.CommandTimeout == 0 {
		o.CommandTimeout = 15 * time.Second
	}
	if o.Lookup == nil {
		o.Lookup = func(string) (string, bool) { return "", false }
	}
	return &Vault{o}
}

// VersionName returns the name that a version of a secret is sealed under.
func VersionName(name string, number int) string { return fmt.Sprintf("%s/%d", name, number) }

// UseName returns the name that the value of a secret is sealed under for an attempt.
func UseName(id agented.ExecutionID, attempt int, name string) string {
	return fmt.Sprintf("%s/%d/%s", id, attempt, name)
}

// valueFault returns why value cannot be the value of a secret, or "".
func valueFault(value string) string {
	text := agented.SecretValueFault(value)
	if text == "" && redact.New([]string{value}).MaskString(value) == value {
		text = fmt.Sprintf("cannot be masked in logs: it needs a line of at least %d bytes that is more than a ruler", redact.MinLen)
	}
	return text
}

func checkValue(value string) error {
	if text := valueFault(value); text != "" {
		return agented.InvalidFields([]agented.Field{{Path: "value", Text: text}})
	}
	return nil
}

// Create stores a new secret. value is used if its source is the database.
func (v *Vault) Create(ctx context.Context, s *agented.Secret, value, by string) error {
	if bad := s.Validate(); len(bad) > 0 {
		return agented.InvalidFields(bad)
	}
	sealed := ""
	if s.Source == agented.SecretStored {
		if err := checkValue(value); err != nil {
			return err
		}
		sealed = v.o.Key.SealText(secret.PurposeSecret, VersionName(s.Name, 1), value)
	}
	return v.o.DB.CreateSecret(ctx, s, sealed, by)
}

// Update stores the source and the scope of a secret, and with a value a new version.
func (v *Vault) Update(ctx context.Context, s *agented.Secret, value *string, by string) error {
	if bad := s.Validate(); len(bad) > 0 {
		return agented.InvalidFields(bad)
	}
	if value == nil {
		return v.o.DB.UpdateSecret(ctx, s, nil, by)
	}
	if err := checkValue(*value); err != nil {
		return err
	}
	return v.o.DB.UpdateSecret(ctx, s, func(version int) string {
		return v.o.Key.SealText(secret.PurposeSecret, VersionName(s.Name, version), *value)
	}, by)
}

// Value returns the stored value of a kept version of a secret.
func (v *Vault) Value(ctx context.Context, name string, number int) (string, error) {
	list, err := v.o.DB.SealedSecrets(ctx, name)
	if err != nil {
		return "", err
	}
	for _, s := range list {
		if s.Number == number {
			return v.o.Key.OpenText(secret.PurposeSecret, VersionName(s.Name, s.Number), s.Sealed)
		}
	}
	return "", agented.Errorf(agented.NotFound, "secret %q has no stored value of version %d", name, number)
}

// Known returns the stored values of all kept versions, for masking.
func (v *Vault) Known(ctx context.Context) ([]string, error) {
	list, err := v.o.DB.SealedSecrets(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("read the secrets: %w", err)
	}
	var out []string
	for _, s := range list {
		if value, err := v.o.Key.OpenText(secret.PurposeSecret, VersionName(s.Name, s.Number), s.Sealed); err == nil {
			out = append(out, value)
		}
	}
	return out, nil
}

// Resolve fetches the values of the named secrets for an attempt and records them, sealed,
// as received. It returns an error for users if one is missing, out of scope or cannot be
// read; the error contains no value.
func (v *Vault) Resolve(ctx context.Context, e *agented.Execution, names []string) error {
	var uses []store.SecretUse
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		s, err := v.o.DB.Secret(ctx, name)
		if err != nil {
			return err
		}
		if text := s.OutOfScope(e); text != "" {
			return agented.Errorf(agented.Denied, "%s", text)
		}
		value, err := v.fetch(ctx, s)
		if err != nil {
			return err
		}
		uses = append(uses, store.SecretUse{
			Attempt: e.AttemptNo, Secret: s.Name, Version: s.Version,
			Sealed: v.o.Key.SealText(secret.PurposeSecretUse, UseName(e.ID, e.AttemptNo, s.Name), value),
		})
	}
	return v.o.DB.UseSecrets(ctx, e.ID, uses, v.o.Now())
}

// ForServer returns the current value of a secret for the server itself. A secret that is limited to
// triggers or repositories is only for their executions.
func (v *Vault) ForServer(ctx context.Context, name string) (string, error) {
	s, err := v.o.DB.Secret(ctx, name)
	if err != nil {
		return "", err
	}
	if len(s.Triggers)+len(s.Repositories) > 0 {
		return "", agented.Errorf(agented.Denied, "secret %q is limited to triggers or repositories: remove the limit, or use another secret", s.Name)
	}
	return v.fetch(ctx, s)
}

// fetch returns the current value of a secret.
func (v *Vault) fetch(ctx context.Context, s *agented.Secret) (value string, err error) {
	switch s.Source {
	case agented.SecretFile:
		value, err = v.readFile(s)
	case agented.SecretCommand:
		value, err = v.runCommand(ctx, s)
	default:
		return v.Value(ctx, s.Name, s.Version)
	}
	if err != nil {
		return "", err
	}
	value = strings.TrimRight(value, "\r\n")
	if text := valueFault(value); text != "" {
		return "", agented.Errorf(agented.Invalid, "the value of secret %q from its %s %s", s.Name, s.Source, text)
	}
	return value, nil
}

// Received returns the values that one attempt received, by the names of their secrets.
func (v *Vault) Received(ctx context.Context, id agented.ExecutionID, attempt int) (map[string]string, error) {
	uses, err := v.o.DB.SecretUses(ctx, id)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, u := range uses {
		if u.Attempt != attempt {
			continue
		}
		if out[u.Secret], err = v.o.Key.OpenText(secret.PurposeSecretUse, UseName(id, u.Attempt, u.Secret), u.Sealed); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// ReceivedByAll returns the values that all attempts of an execution received, for masking.
func (v *Vault) ReceivedByAll(ctx context.Context, id agented.ExecutionID) ([]string, error) {
	uses, err := v.o.DB.SecretUses(ctx, id)
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, u := range uses {
		if value, err := v.o.Key.OpenText(secret.PurposeSecretUse, UseName(id, u.Attempt, u.Secret), u.Sealed); err == nil {
			out[value] = true
		}
	}
	return slices.Collect(maps.Keys(out)), nil
}
