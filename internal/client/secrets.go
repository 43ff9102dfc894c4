package client

import (
	"context"
	"iter"
	"net/http"
	"time"
)

const secretsPath = "/api/v1/secrets"

// Secret is a named secret in answers. Its value is never part of them.
type Secret struct {
	Name         string          `json:"name"`
	Source       string          `json:"source"`
	File         string          `json:"file"`
	Command      []string        `json:"command"`
	Triggers     []string        `json:"triggers"`
	Repositories []string        `json:"repositories"`
	Version      int             `json:"version"`
	Versions     []SecretVersion `json:"versions"`
	UsedAt       *time.Time      `json:"used_at"`
	UsedBy       *string         `json:"used_by"`
	Users        []string        `json:"users"`
}

// SecretVersion is a version of a named secret.
type SecretVersion struct {
	Number    int        `json:"number"`
	CreatedAt *time.Time `json:"created_at"`
	CreatedBy string     `json:"created_by"`
	UsedAt    *time.Time `json:"used_at"`
	UsedBy    *string    `json:"used_by"`
}

// SecretChange holds the fields of a secret to set; nil fields stay unchanged.
type SecretChange struct {
	Value        *string   `json:"value,omitempty"`
	File         *string   `json:"file,omitempty"`
	Command      []string  `json:"command,omitempty"`
	Triggers     *[]string `json:"triggers,omitempty"`
	Repositories *[]string `json:"repositories,omitempty"`
}

// SecretCreate describes a new secret.
type SecretCreate struct {
	Name string `json:"name"`
	SecretChange
}

// SecretRotation is a new value of a secret, or the previous one.
type SecretRotation struct {
	Value    string `json:"value,omitempty"`
	Previous bool   `json:"previous,omitempty"`
}

// Secrets lists the named secrets.
func (c *Client) Secrets(ctx context.Context, limit int) iter.Seq2[Response[Secret], error] {
	return list[Secret](ctx, c, secretsPath, values(), limit)
}

// Secret fetches a named secret.
func (c *Client) Secret(ctx context.Context, name string) (Response[Secret], error) {
	return do[Secret](ctx, c, http.MethodGet, at(secretsPath, name, ""), nil)
}

// CreateSecret creates a named secret.
func (c *Client) CreateSecret(ctx context.Context, s SecretCreate) (Response[Secret], error) {
	return do[Secret](ctx, c, http.MethodPost, secretsPath, s)
}

// UpdateSecret changes a named secret.
func (c *Client) UpdateSecret(ctx context.Context, name string, s SecretChange) (Response[Secret], error) {
	return do[Secret](ctx, c, http.MethodPatch, at(secretsPath, name, ""), s)
}

// RotateSecret replaces the value of a named secret.
func (c *Client) RotateSecret(ctx context.Context, name string, r SecretRotation) (Response[Secret], error) {
	return do[Secret](ctx, c, http.MethodPost, at(secretsPath, name, "/rotate"), r)
}

// DeleteSecret deletes a named secret.
func (c *Client) DeleteSecret(ctx context.Context, name string) error {
	return c.Do(ctx, http.MethodDelete, at(secretsPath, name, ""), nil, nil, nil)
}
