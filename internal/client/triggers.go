package client

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"time"
)

const (
	triggersPath   = "/api/v1/triggers"
	agentsPath     = "/api/v1/agents"
	deliveriesPath = "/api/v1/deliveries"
)

// Hint is a problem that keeps a valid trigger from firing.
type Hint struct {
	Field string `json:"field"`
	Text  string `json:"text"`
	Fix   string `json:"fix"`
}

// Trigger is a stored trigger.
type Trigger struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Enabled   bool       `json:"enabled"`
	Backend   string     `json:"backend"`
	UpdatedAt *time.Time `json:"updated_at"`
	NextRunAt *time.Time `json:"next_run_at"`
	Hints     []Hint     `json:"hints"`
	Last      *struct {
		Status    string     `json:"status"`
		CreatedAt *time.Time `json:"created_at"`
	} `json:"last_execution"`
}

// Triggers lists the triggers. With enabled it omits disabled ones.
func (c *Client) Triggers(ctx context.Context, enabled bool, limit int) iter.Seq2[Response[Trigger], error] {
	only := ""
	if enabled {
		only = "true"
	}
	return list[Trigger](ctx, c, triggersPath, values("enabled", only), limit)
}

// Trigger fetches a trigger.
func (c *Client) Trigger(ctx context.Context, id string) (Response[Trigger], error) {
	return do[Trigger](ctx, c, http.MethodGet, at(triggersPath, id, ""), nil)
}

// TriggerCreate describes a new trigger.
type TriggerCreate struct {
	Name          string          `json:"name"`
	Backend       string          `json:"backend"`
	Command       []string        `json:"command,omitempty"`
	MaxConcurrent *int            `json:"max_concurrent,omitempty"` // 0 means no limit
	Webhooks      []WebhookCreate `json:"webhooks,omitempty"`
}

// WebhookCreate describes a webhook of a new trigger.
type WebhookCreate struct {
	Source string `json:"source"`
	Match  struct {
		Events []string `json:"events,omitempty"`
	} `json:"match"`
}

// CreateTrigger creates a trigger.
func (c *Client) CreateTrigger(ctx context.Context, t TriggerCreate) (Response[Trigger], error) {
	return do[Trigger](ctx, c, http.MethodPost, triggersPath, t)
}

// RunRequest holds what a manual run passes to the prompt.
type RunRequest struct {
	Message string            `json:"message,omitempty"`
	Vars    map[string]string `json:"vars,omitempty"`
}

// RunTrigger fires a trigger. Requests with the same idempotency key, unless it is empty, fire once.
func (c *Client) RunTrigger(ctx context.Context, id, idempotencyKey string, r RunRequest) (Response[Accepted], error) {
	header := http.Header{}
	if idempotencyKey != "" {
		header.Set("Idempotency-Key", idempotencyKey)
	}
	var got Response[Accepted]
	err := c.Do(ctx, http.MethodPost, at(triggersPath, id, "/run"), header, r, &got)
	return got, err
}

// DeleteTrigger deletes a trigger.
func (c *Client) DeleteTrigger(ctx context.Context, id string) error {
	return c.Do(ctx, http.MethodDelete, at(triggersPath, id, ""), nil, nil, nil)
}

// ApplyRequest holds the objects of a set of files.
type ApplyRequest struct {
	Set   string           `json:"set"`
	Prune bool             `json:"prune"`
	Items []map[string]any `json:"items"`
}

// Applied is the result of an apply.
type Applied struct {
	Items []struct {
		Name   string         `json:"name"`
		ID     string         `json:"id"`
		Action string         `json:"action"` // created, changed, unchanged, deleted
		Before map[string]any `json:"before"`
		After  struct {
			Hints []Hint `json:"hints"`
		} `json:"after"`
	} `json:"items"`
}

// ApplyTriggers creates, changes and deletes triggers in one transaction. With dryRun it changes
// nothing.
func (c *Client) ApplyTriggers(ctx context.Context, r ApplyRequest, dryRun bool) (Response[Applied], error) {
	return do[Applied](ctx, c, http.MethodPost, triggersPath+"/apply"+dryRunQuery(dryRun), r)
}

// ApplyAgents creates, changes and deletes agents in one transaction. With dryRun it changes
// nothing.
func (c *Client) ApplyAgents(ctx context.Context, r ApplyRequest, dryRun bool) (Response[Applied], error) {
	return do[Applied](ctx, c, http.MethodPost, agentsPath+"/apply"+dryRunQuery(dryRun), r)
}

func dryRunQuery(on bool) string {
	if on {
		return "?dry_run=true"
	}
	return ""
}

// Agent is a stored agent.
type Agent struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Role      string     `json:"role"`
	Backend   string     `json:"backend"`
	Enabled   bool       `json:"enabled"`
	UpdatedAt *time.Time `json:"updated_at"`
}

// Agents lists the agents.
func (c *Client) Agents(ctx context.Context, limit int) iter.Seq2[Response[Agent], error] {
	return list[Agent](ctx, c, agentsPath, values(), limit)
}

// Agent fetches an agent by id or name.
func (c *Client) Agent(ctx context.Context, ref string) (Response[Agent], error) {
	return do[Agent](ctx, c, http.MethodGet, at(agentsPath, ref, ""), nil)
}

// DeleteAgent deletes an agent.
func (c *Client) DeleteAgent(ctx context.Context, id string) error {
	return c.Do(ctx, http.MethodDelete, at(agentsPath, id, ""), nil, nil, nil)
}

// Delivery is a webhook delivery.
type Delivery struct {
	ID         string     `json:"id"`
	Endpoint   string     `json:"endpoint"`
	ReceivedAt *time.Time `json:"received_at"`
	Address    string     `json:"address"`
	Event      string     `json:"event"`
	Action     string     `json:"action"`
	Verdict    string     `json:"verdict"`
	Reason     string     `json:"reason"`
	ReplayOf   string     `json:"replay_of"`
	Executions []string   `json:"execution_ids"`
	Triggers   []struct {
		Name      string `json:"trigger_name"`
		Fired     bool   `json:"fired"`
		Reason    string `json:"reason"`
		Execution string `json:"execution_id"`
	} `json:"triggers"`
	Headers   map[string]string `json:"headers"`
	Body      *string           `json:"body"`
	Encoding  string            `json:"body_encoding"`
	Truncated bool              `json:"body_truncated"`
}

// DeliveryQuery selects deliveries; empty fields select all.
type DeliveryQuery struct {
	TriggerID, Verdict, Event, Endpoint string
}

// Deliveries lists webhook deliveries, newest first.
func (c *Client) Deliveries(ctx context.Context, q DeliveryQuery, limit int) iter.Seq2[Response[Delivery], error] {
	return list[Delivery](ctx, c, deliveriesPath, values("trigger_id", q.TriggerID, "verdict", q.Verdict, "event", q.Event, "endpoint", q.Endpoint), limit)
}

// Delivery fetches a webhook delivery.
func (c *Client) Delivery(ctx context.Context, id string) (Response[Delivery], error) {
	return do[Delivery](ctx, c, http.MethodGet, at(deliveriesPath, id, ""), nil)
}

// Received is the result of a webhook delivery.
type Received struct {
	ID         string   `json:"delivery_id"`
	Verdict    string   `json:"verdict"`
	Reason     string   `json:"reason"`
	Executions []string `json:"execution_ids"`
}

// ReplayDelivery evaluates a stored delivery against the current webhooks.
func (c *Client) ReplayDelivery(ctx context.Context, id string) (Response[Received], error) {
	return do[Received](ctx, c, http.MethodPost, at(deliveriesPath, id, "/replay"), nil)
}

// MatchRequest is a webhook body to evaluate.
type MatchRequest struct {
	Event     string            `json:"event,omitempty"`
	Headers   map[string]string `json:"headers,omitempty"`
	TriggerID string            `json:"trigger_id,omitempty"`
	Body      json.RawMessage   `json:"body"`
}

// Matches lists which triggers a webhook body would fire.
type Matches struct {
	Items []struct {
		Name   string `json:"trigger_name"`
		Fires  bool   `json:"fires"`
		Rule   string `json:"rule"`
		Reason string `json:"reason"`
	} `json:"items"`
}

// MatchWebhook evaluates a webhook body against the webhooks of all triggers. It fires nothing.
func (c *Client) MatchWebhook(ctx context.Context, m MatchRequest) (Response[Matches], error) {
	return do[Matches](ctx, c, http.MethodPost, "/api/v1/webhooks/match", m)
}

// Schedule is a schedule of a trigger.
type Schedule struct {
	ID             string     `json:"id"`
	Cron           string     `json:"cron"`
	Every          string     `json:"every"`
	At             *time.Time `json:"at"`
	Zone           string     `json:"zone"`
	Enabled        bool       `json:"enabled"`
	TriggerName    string     `json:"trigger_name"`
	TriggerEnabled bool       `json:"trigger_enabled"`
	NextRunAt      *time.Time `json:"next_run_at"`
}

// Schedules lists the schedules of a trigger, or of all if the id is empty.
func (c *Client) Schedules(ctx context.Context, triggerID string, limit int) iter.Seq2[Response[Schedule], error] {
	return list[Schedule](ctx, c, "/api/v1/schedules", values("trigger_id", triggerID), limit)
}

// Tick is the recorded result of a due time.
type Tick struct {
	Schedule  string    `json:"schedule_id"`
	DueAt     time.Time `json:"due_at"`
	Outcome   string    `json:"outcome"`
	Execution *string   `json:"execution_id"`
	Reason    string    `json:"reason"`
}

// TickQuery selects ticks; empty fields select all.
type TickQuery struct {
	TriggerID, ScheduleID, Outcome string
}

// Ticks lists ticks, newest first.
func (c *Client) Ticks(ctx context.Context, q TickQuery, limit int) iter.Seq2[Response[Tick], error] {
	return list[Tick](ctx, c, "/api/v1/ticks", values("trigger_id", q.TriggerID, "schedule_id", q.ScheduleID, "outcome", q.Outcome), limit)
}
