// Package secrets implements the API of named secrets. Values are write-only: no answer
// contains one.
package secrets

import (
	"context"
	"net/http"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/vault"
)

// Secrets serves the named secrets.
type Secrets struct {
	DB      *store.DB
	Vault   *vault.Vault
	Changed func() // is called after each change of a value; may be nil
}

// Routes returns the routes of named secrets.
func (s *Secrets) Routes() []rest.Route {
	const admin = agented.RoleAdmin
	return []rest.Route{
		rest.Op("GET /api/v1/secrets", admin, s.list, rest.About{
			ID: "list-secrets", Tag: "secrets", Summary: "List named secrets",
			Text: "Lists all named secrets by name, without their values.",
		}),
		rest.Op("POST /api/v1/secrets", admin, s.create, rest.About{
			ID: "create-secret", Tag: "secrets", Summary: "Create a named secret", Status: http.StatusCreated, Errors: []int{http.StatusConflict},
			Text: "Requires one of `value` (sealed at rest), `file` (read at the start of each attempt) and `command` (run at the start of each attempt). The value is never returned.",
		}),
		rest.Op("GET /api/v1/secrets/{name}", admin, s.get, rest.About{
			ID: "get-secret", Tag: "secrets", Summary: "Show a named secret", Errors: []int{http.StatusNotFound},
			Text: "Returns scope, versions, last use and users of one secret, without its value.",
		}),
		rest.Op("PATCH /api/v1/secrets/{name}", admin, s.update, rest.About{
			ID: "update-secret", Tag: "secrets", Summary: "Update a named secret", Errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed},
			Text: "Takes a JSON merge patch. A value, a file or a command makes a new version, which the next attempts receive; attempts that run keep theirs. The last two versions are kept.",
		}),
		rest.Op("POST /api/v1/secrets/{name}/rotate", admin, s.rotate, rest.About{
			ID: "rotate-secret", Tag: "secrets", Summary: "Rotate a named secret", Status: http.StatusOK, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Replaces the value of a stored secret, and rejects the current value. With `previous`, the value before the latest rotation is restored as a new version.",
		}),
		rest.Op("DELETE /api/v1/secrets/{name}", admin, s.delete, rest.About{
			ID: "delete-secret", Tag: "secrets", Summary: "Delete a named secret", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Returns 409 with the list of users while triggers, agents, accounts or executions that have not ended refer to it.",
		}),
	}
}

// VersionView is a version of a secret in responses.
type VersionView struct {
	Number    int                  `json:"number" doc:"Counts from 1"`
	CreatedAt time.Time            `json:"created_at"`
	CreatedBy string               `json:"created_by"`
	UsedAt    *time.Time           `json:"used_at" nullable:"true" doc:"Start of the latest attempt that received it"`
	UsedBy    *agented.ExecutionID `json:"used_by" nullable:"true" doc:"The execution of that attempt"`
}

// SecretView is a secret in responses. Names are stable; fields may be added.
type SecretView struct {
	Name         string               `json:"name"`
	Source       agented.SecretSource `json:"source" enum:"stored,file,command"`
	File         string               `json:"file,omitempty" doc:"Source file: the path, relative to the server's CREDENTIALS_DIRECTORY unless absolute"`
	Command      []string             `json:"command,omitempty" doc:"Source command: program and arguments"`
	Triggers     []string             `json:"triggers" doc:"Names, patterns or ids of the triggers that may use it; empty: every execution"`
	Repositories []string             `json:"repositories" doc:"Patterns of the repositories whose executions may use it; empty: every execution"`
	Version      int                  `json:"version" doc:"Current version"`
	Versions     []VersionView        `json:"versions" doc:"The versions that are kept, newest first"`
	UsedAt       *time.Time           `json:"used_at" nullable:"true" doc:"Start of the latest attempt that received it"`
	UsedBy       *agented.ExecutionID `json:"used_by" nullable:"true" doc:"The execution of that attempt"`
	Users        []string             `json:"users,omitempty" doc:"What refers to it. Only where one secret is shown"`
	CreatedAt    time.Time            `json:"created_at"`
	CreatedBy    string               `json:"created_by"`
	UpdatedAt    time.Time            `json:"updated_at"`
	ETag         string               `json:"etag" doc:"Version of the object, for If-Match in an update"`
}

func used(at time.Time, by agented.ExecutionID) (*time.Time, *agented.ExecutionID) {
	if at.IsZero() {
		return nil, nil
	}
	return rest.OptionalTime(at), &by
}

// etag returns the version of a secret, with its scope.
func etag(s *agented.Secret) string {
	return rest.ETag(s.Name, s.Source, s.Path, s.Command, s.Triggers, s.Repositories, s.Version)
}

func view(s *agented.Secret) SecretView {
	v := SecretView{
		Name: s.Name, Source: s.Source, File: s.Path, Command: s.Command, Triggers: rest.NotNil(s.Triggers), Repositories: rest.NotNil(s.Repositories),
		Version: s.Version, Versions: make([]VersionView, len(s.Versions)),
		CreatedAt: rest.Time(s.CreatedAt), CreatedBy: s.CreatedBy, UpdatedAt: rest.Time(s.UpdatedAt), ETag: etag(s),
	}
	v.UsedAt, v.UsedBy = used(s.UsedAt())
	for i, n := range s.Versions {
		v.Versions[i] = VersionView{Number: n.Number, CreatedAt: rest.Time(n.CreatedAt), CreatedBy: n.CreatedBy}
		v.Versions[i].UsedAt, v.Versions[i].UsedBy = used(n.UsedAt, n.UsedBy)
	}
	return v
}

// SecretFields are the fields of a secret in requests.
type SecretFields struct {
	Value        rest.Optional[string]   `json:"value,omitzero" doc:"The value, 8 bytes to 64 KiB. Write-only"`
	File         rest.Optional[string]   `json:"file,omitzero" doc:"Path of a file that contains the value: absolute, or a name in the server's CREDENTIALS_DIRECTORY"`
	Command      rest.Optional[[]string] `json:"command,omitzero" doc:"Program and arguments that print the value, for example [\"vault\",\"kv\",\"get\",\"-field=token\",\"secret/ci\"]"`
	Triggers     rest.Optional[[]string] `json:"triggers,omitzero" doc:"Names, patterns with * or ids of the triggers that may use it. Default: every execution"`
	Repositories rest.Optional[[]string] `json:"repositories,omitzero" doc:"Repositories whose executions may use it: owner/name for github.com, host/owner/name, or an absolute path; * stands for any part of a name. Default: every execution"`
}

// apply applies the request to a secret. It returns the new value, nil if there is none.
func (f *SecretFields) apply(s *agented.Secret) (value *string, err error) {
	sources := 0
	for _, set := range []bool{f.Value.Set && !f.Value.Null, f.File.Set && f.File.Value != "", f.Command.Set && len(f.Command.Value) > 0} {
		if set {
			sources++
		}
	}
	if sources > 1 {
		return nil, agented.Errorf(agented.Invalid, "only one of value, file and command can be set")
	}
	switch {
	case f.Value.Set && !f.Value.Null:
		value = &f.Value.Value
		s.Source, s.Path, s.Command = agented.SecretStored, "", nil
	case f.File.Set && f.File.Value != "":
		s.Source, s.Path, s.Command = agented.SecretFile, f.File.Value, nil
	case f.Command.Set && len(f.Command.Value) > 0:
		s.Source, s.Path, s.Command = agented.SecretCommand, "", f.Command.Value
	}
	f.Triggers.Into(&s.Triggers, nil)
	f.Repositories.Into(&s.Repositories, nil)
	return value, nil
}

// SecretCreate is the request to create a secret.
type SecretCreate struct {
	Name string `json:"name" doc:"1 to 100 letters, digits and . _ -; unique, ignoring case"`
	SecretFields
}

// SecretUpdate is the request to update a secret; omitted fields are unchanged.
type SecretUpdate struct{ SecretFields }

// SecretRotate is the request to rotate a secret.
type SecretRotate struct {
	Value    string `json:"value,omitempty" doc:"The new value. Write-only"`
	Previous bool   `json:"previous,omitempty" doc:"Restore the previous value instead"`
}

type secretPath struct {
	Name string `path:"name" maxLength:"100" doc:"The secret's name"`
}

type secretChange struct {
	Name string `path:"name" maxLength:"100" doc:"The secret's name"`
	rest.IfMatch
	Body SecretUpdate
}

type secretRotation struct {
	Name string `path:"name" maxLength:"100" doc:"The secret's name"`
	Body SecretRotate
}

type createdSecret struct {
	Location string `header:"Location" doc:"Path of the new secret"`
	Body     SecretView
}

func (s *Secrets) changed() {
	if s.Changed != nil {
		s.Changed()
	}
}

func (s *Secrets) list(ctx context.Context, _ *rest.PageInput) (*rest.ListOutput[SecretView], error) {
	items, err := s.DB.Secrets(ctx)
	if err != nil {
		return nil, err
	}
	return rest.List(items, "", view), nil
}

// show returns one secret with its users.
func (s *Secrets) show(ctx context.Context, one *agented.Secret) (SecretView, error) {
	v := view(one)
	var err error
	v.Users, err = s.DB.SecretUsers(ctx, one.Name)
	return v, err
}

func (s *Secrets) get(ctx context.Context, in *secretPath) (*rest.Tagged[SecretView], error) {
	one, err := s.DB.Secret(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	v, err := s.show(ctx, one)
	return rest.Versioned(v, v.ETag), err
}

func (s *Secrets) create(ctx context.Context, in *rest.Input[SecretCreate]) (*createdSecret, error) {
	one := &agented.Secret{Name: in.Body.Name}
	value, err := in.Body.apply(one)
	if err != nil {
		return nil, err
	}
	if one.Source == "" {
		return nil, agented.InvalidFields([]agented.Field{{Path: "value", Text: "is required, unless file or command is set"}})
	}
	text := ""
	if value != nil {
		text = *value
	}
	if err := s.Vault.Create(ctx, one, text, rest.Principal(ctx).Name); err != nil {
		return nil, err
	}
	s.changed()
	return &createdSecret{Location: "/api/v1/secrets/" + one.Name, Body: view(one)}, nil
}

func (s *Secrets) update(ctx context.Context, in *secretChange) (*rest.Tagged[SecretView], error) {
	one, err := s.DB.Secret(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	if err := in.Check("secret", etag(one), func() any { return view(one) }); err != nil {
		return nil, err
	}
	value, err := in.Body.apply(one)
	if err != nil {
		return nil, err
	}
	return s.store(ctx, one, value)
}

// store stores a changed secret, and returns it with its users.
func (s *Secrets) store(ctx context.Context, one *agented.Secret, value *string) (*rest.Tagged[SecretView], error) {
	if err := s.Vault.Update(ctx, one, value, rest.Principal(ctx).Name); err != nil {
		return nil, err
	}
	s.changed()
	v, err := s.show(ctx, one)
	return rest.Versioned(v, v.ETag), err
}

func (s *Secrets) rotate(ctx context.Context, in *secretRotation) (*rest.Tagged[SecretView], error) {
	one, err := s.DB.Secret(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	if one.Source != agented.SecretStored {
		return nil, agented.Errorf(agented.Conflict, "secret %q comes from a %s, which is read at the start of each attempt: change it there", one.Name, one.Source)
	}
	value := in.Body.Value
	switch {
	case in.Body.Previous && value != "":
		return nil, agented.Errorf(agented.Invalid, "only one of value and previous can be set")
	case in.Body.Previous:
		if len(one.Versions) < 2 {
			return nil, agented.Errorf(agented.Conflict, "secret %q has no previous version", one.Name)
		}
		if value, err = s.Vault.Value(ctx, one.Name, one.Versions[1].Number); agented.KindOf(err) == agented.NotFound {
			return nil, agented.Errorf(agented.Conflict, "the previous version of secret %q had another source and cannot be restored", one.Name)
		}
	default:
		var now string
		if now, err = s.Vault.Value(ctx, one.Name, one.Version); err == nil && now == value {
			return nil, agented.Errorf(agented.Conflict, "this is the current value of secret %q: enter a new one", one.Name)
		}
		if agented.KindOf(err) == agented.Invalid {
			err = nil // sealed with a lost key: the new value replaces it
		}
	}
	if err != nil {
		return nil, err
	}
	return s.store(ctx, one, &value)
}

func (s *Secrets) delete(ctx context.Context, in *secretPath) (*struct{}, error) {
	one, err := s.DB.Secret(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	if err := s.DB.DeleteSecret(ctx, one.Name, rest.Principal(ctx).Name); err != nil {
		return nil, err
	}
	s.changed()
	return nil, nil
}
