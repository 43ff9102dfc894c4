package identity

import (
	"context"
	"net/http"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/store"
)

// keys handles the requests about API keys.
type keys struct {
	db   *store.DB
	auth *auth.Service
}

// KeyView is an API key in responses, without the key itself.
type KeyView struct {
	ID        agented.KeyID `json:"id"`
	Name      string        `json:"name" doc:"Unique among the valid keys"`
	Prefix    string        `json:"prefix" doc:"The start of the key, to identify it"`
	Role      agented.Role  `json:"role" enum:"viewer,operator,admin"`
	CreatedBy string        `json:"created_by"`
	CreatedAt time.Time     `json:"created_at"`
	UsedAt    *time.Time    `json:"used_at" nullable:"true" doc:"Last use, to the minute"`
	RevokedAt *time.Time    `json:"revoked_at" nullable:"true" doc:"null: it is not revoked"`
	ExpiresAt *time.Time    `json:"expires_at" nullable:"true" doc:"Expiry time; null: never"`

	Owner agented.UserID `json:"owner" doc:"The user with whom the key ends. Empty: none"`

	Triggers  []agented.TriggerID `json:"triggers" doc:"The key reaches only these triggers and their executions. Empty: all"`
	Addresses []string            `json:"addresses" doc:"The key is valid only from these networks. Empty: from everywhere"`
}

func viewKey(k *store.Key) KeyView {
	v := KeyView{
		ID: k.ID, Name: k.Name, Prefix: k.Prefix, Role: k.Role, CreatedBy: k.CreatedBy,
		CreatedAt: rest.Time(k.CreatedAt), UsedAt: rest.OptionalTime(k.UsedAt), RevokedAt: rest.OptionalTime(k.RevokedAt), ExpiresAt: rest.OptionalTime(k.ExpiresAt), Owner: k.Owner,
		Triggers: append([]agented.TriggerID{}, k.Triggers...), Addresses: []string{},
	}
	for _, network := range k.Addresses {
		v.Addresses = append(v.Addresses, network.String())
	}
	return v
}

// KeyCreate is the request to create an API key.
type KeyCreate struct {
	Name string       `json:"name" maxLength:"200" doc:"Purpose of the key"`
	Role agented.Role `json:"role" enum:"viewer,operator,admin"`

	ExpiresAt time.Time `json:"expires_at,omitzero" doc:"Expiry time; omitted: never"`

	Triggers  []string `json:"triggers,omitempty" doc:"Ids or names of at most 50 triggers; the key reaches only these and their executions. Such a key cannot have the role admin. Omitted: all"`
	Addresses []string `json:"addresses,omitempty" doc:"At most 50 addresses or networks from which the key is valid, such as 192.0.2.0/24. Omitted: from everywhere"`
	Owner     string   `json:"owner,omitempty" maxLength:"200" doc:"Id or name of the user with whom the key ends. Omitted: the user of the request"`
}

// NewKey is a new key, with the key itself.
type NewKey struct {
	KeyView
	Key string `json:"key" doc:"The key itself. It is returned only once and not stored"`
}

type createdKey struct {
	CacheControl string `header:"Cache-Control" doc:"no-store"`
	Body         NewKey
}

func (h *keys) list(ctx context.Context, in *rest.PageInput) (*rest.ListOutput[KeyView], error) {
	items, next, err := h.db.Keys(ctx, in.Page())
	if err != nil {
		return nil, rest.InQuery(err)
	}
	return rest.List(items, next, viewKey), nil
}

func (h *keys) create(ctx context.Context, in *rest.Input[KeyCreate]) (*createdKey, error) {
	k, plain, err := h.auth.CreateKey(ctx, auth.NewKey{
		Name: in.Body.Name, Role: in.Body.Role, Expires: in.Body.ExpiresAt, Triggers: in.Body.Triggers, Addresses: in.Body.Addresses, Owner: in.Body.Owner,
	}, rest.Principal(ctx))
	if err != nil {
		return nil, err
	}
	return &createdKey{CacheControl: "no-store", Body: NewKey{KeyView: viewKey(k), Key: plain}}, nil
}

type keyPath struct {
	ID string `path:"id" maxLength:"100" doc:"The key's id, key-…"`
}

func (h *keys) revoke(ctx context.Context, in *keyPath) (*struct{}, error) {
	if !agented.ValidID("key", in.ID) {
		return nil, agented.Errorf(agented.NotFound, "no key has this id")
	}
	return nil, h.auth.RevokeKey(ctx, agented.KeyID(in.ID), rest.Principal(ctx).Name)
}

// routes returns the routes of API keys.
func (h *keys) routes() []rest.Route {
	const admin = agented.RoleAdmin
	return []rest.Route{
		rest.Op("GET /api/v1/auth/keys", admin, h.list, rest.About{
			ID: "list-keys", Tag: "auth", Summary: "List API keys", Text: "Lists keys, including revoked ones, newest first. The keys themselves are not returned.",
		}),
		rest.Op("POST /api/v1/auth/keys", admin, h.create, rest.About{
			ID: "create-key", Tag: "auth", Summary: "Create an API key", Status: http.StatusCreated, Errors: []int{http.StatusConflict},
			Text: "The key itself is returned only in this response.", MaxBody: maxForm,
		}),
		rest.Op("DELETE /api/v1/auth/keys/{id}", admin, h.revoke, rest.About{
			ID: "revoke-key", Tag: "auth", Summary: "Revoke an API key", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Revokes the key permanently and ends its open streams.",
		}),
	}
}
