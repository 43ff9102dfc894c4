package client

import (
	"context"
	"iter"
	"net/http"
	"time"

	"github.com/agented/agented"
)

const accountsPath = "/api/v1/accounts"

// Account is an account of an agent CLI, without its credentials.
type Account struct {
	ID            string               `json:"id"`
	Backend       string               `json:"backend"`
	Name          string               `json:"name"`
	Label         string               `json:"label"`
	Enabled       bool                 `json:"enabled"`
	Default       bool                 `json:"default"`
	MaxConcurrent int                  `json:"max_concurrent"`
	State         agented.AccountState `json:"state"`
	Until         *time.Time           `json:"until"`
	Evidence      string               `json:"evidence"`
	Hint          string               `json:"hint"`
	Fix           string               `json:"fix"`
	Check         AccountCheck         `json:"check"`
	Running       int                  `json:"running"`
	UsedAt        *time.Time           `json:"used_at"`
}

// AccountCheck is what is known about whether an account works.
type AccountCheck struct {
	Result      agented.AccountCheck `json:"result"`
	At          *time.Time           `json:"at"`
	Reason      string               `json:"reason"`
	ExecutionID string               `json:"execution_id"`
}

// AccountChange holds the fields of an account to set; nil fields stay unchanged.
type AccountChange struct {
	Name          *string        `json:"name,omitempty"`
	Enabled       *bool          `json:"enabled,omitempty"`
	Config        *string        `json:"config,omitempty"`
	Order         *int           `json:"order,omitempty"`
	MaxConcurrent *int           `json:"max_concurrent,omitempty"`
	Credentials   map[string]any `json:"credentials,omitempty"` // texts and SecretRefs; replaces all
}

// AccountCreate describes a new account.
type AccountCreate struct {
	Backend string `json:"backend"`
	AccountChange
}

// Accounts lists the accounts.
func (c *Client) Accounts(ctx context.Context, limit int) iter.Seq2[Response[Account], error] {
	return list[Account](ctx, c, accountsPath, values(), limit)
}

// Account fetches an account.
func (c *Client) Account(ctx context.Context, id string) (Response[Account], error) {
	return do[Account](ctx, c, http.MethodGet, at(accountsPath, id, ""), nil)
}

// CreateAccount creates an account.
func (c *Client) CreateAccount(ctx context.Context, a AccountCreate) (Response[Account], error) {
	return do[Account](ctx, c, http.MethodPost, accountsPath, a)
}

// UpdateAccount changes an account.
func (c *Client) UpdateAccount(ctx context.Context, id string, a AccountChange) (Response[Account], error) {
	return do[Account](ctx, c, http.MethodPatch, at(accountsPath, id, ""), a)
}

// ResetAccount marks an account as ready.
func (c *Client) ResetAccount(ctx context.Context, id string) (Response[Account], error) {
	return do[Account](ctx, c, http.MethodPost, at(accountsPath, id, "/reset"), nil)
}

// ProbeAccount starts an execution that tests an account.
func (c *Client) ProbeAccount(ctx context.Context, id string) (Response[Accepted], error) {
	return do[Accepted](ctx, c, http.MethodPost, at(accountsPath, id, "/probe"), nil)
}

// DeleteAccount deletes an account.
func (c *Client) DeleteAccount(ctx context.Context, id string) error {
	return c.Do(ctx, http.MethodDelete, at(accountsPath, id, ""), nil, nil, nil)
}
