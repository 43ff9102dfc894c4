package agented

import "encoding/json"

// Webhook is one rule by which external calls fire a trigger. internal/webhook
// defines the grammar of Auth and Match.
type Webhook struct {
	ID        string          `json:"id"`     // "whk-…"
	Source    Source          `json:"source"` // github or webhook
	Enabled   bool            `json:"enabled"`
	Auth      json.RawMessage `json:"auth,omitempty"`  // for webhook: how a call proves that it is authentic
	Match     json.RawMessage `json:"match,omitempty"` // which calls fire
	Supersede bool            `json:"supersede"`       // a newer push to the same pull request or branch replaces pending and running executions
	Secret    string          `json:"-"`               // write-only; sealed at rest; empty for github: GITHUB_WEBHOOK_SECRET
}
