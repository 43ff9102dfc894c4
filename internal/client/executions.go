package client

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"time"
)

const executionsPath = "/api/v1/executions"

// Accepted is the answer to a request that fires an execution.
type Accepted struct {
	ExecutionID string `json:"execution_id"`
}

// Execution is an execution of a trigger.
type Execution struct {
	ID          string     `json:"id"`
	TriggerName string     `json:"trigger_name"`
	Backend     string     `json:"backend"`
	Status      string     `json:"status"`
	Reason      string     `json:"reason"`
	Source      string     `json:"source"`
	CreatedAt   *time.Time `json:"created_at"`
	StartedAt   *time.Time `json:"started_at"`
	FinishedAt  *time.Time `json:"finished_at"`
	DurationMS  *int64     `json:"duration_ms"`
	ExitCode    *int       `json:"exit_code"`
	Error       string     `json:"error_message"`
	Result      string     `json:"result"`
	Prompt      string     `json:"prompt"`
	RetryOf     string     `json:"retry_of"`
	LastSeq     int64      `json:"last_seq"`
	Attempts    []Attempt  `json:"attempts"`
	Usage       *Tokens    `json:"usage"`
	Pause       *Pause     `json:"pause"`
	Checkout    *Checkout  `json:"checkout"`

	Changes      *ChangesSummary      `json:"changes"`
	Publications []PublicationSummary `json:"publications"`

	Contract string          `json:"contract"`
	Output   json.RawMessage `json:"output"`
}

// Attempt is one run of an execution's process.
type Attempt struct {
	Number     int    `json:"number"`
	Backend    string `json:"backend"`
	Account    string `json:"account"`
	Status     string `json:"status"`
	Reason     string `json:"reason"`
	Class      string `json:"class"`
	CLIVersion string `json:"cli_version"`
	Sandbox    string `json:"sandbox"`
	Broker     *struct {
		Credentials bool `json:"credentials"`
		Refused     []struct {
			Address string `json:"address"`
			Reason  string `json:"reason"`
			Count   int    `json:"count"`
		} `json:"refused"`
		More int `json:"more"`
	} `json:"broker"`
	ExitCode  *int   `json:"exit_code"`
	Signal    string `json:"signal"`
	SessionID string `json:"session_id"`
	Contract  string `json:"contract"`

	Clauses []Clause `json:"clauses"`
}

// Clause is the evaluation of one clause of an outcome contract.
type Clause struct {
	Name     string `json:"clause"`
	Met      bool   `json:"met"`
	Text     string `json:"text"`
	Evidence string `json:"evidence"`
	Pending  bool   `json:"pending"`
}

// Tokens holds the tokens and the cost of an execution; nil means unknown.
type Tokens struct {
	InputTokens  *int64   `json:"input_tokens"`
	OutputTokens *int64   `json:"output_tokens"`
	CostUSD      *float64 `json:"cost_usd"`
	Estimated    bool     `json:"cost_estimated"`
}

// Pause is the pause of an execution.
type Pause struct {
	Reason string    `json:"paused_reason"`
	Until  time.Time `json:"paused_until"`
}

// Checkout is the commit that an execution works on.
type Checkout struct {
	Repository string `json:"repository"`
	Commit     string `json:"commit"`
}

// ExecutionQuery selects executions; empty fields select all.
type ExecutionQuery struct {
	Status    string // comma-separated
	TriggerID string
	Class     string
}

// Executions lists executions, newest first.
func (c *Client) Executions(ctx context.Context, q ExecutionQuery, limit int) iter.Seq2[Response[Execution], error] {
	return list[Execution](ctx, c, executionsPath, values("status", q.Status, "trigger_id", q.TriggerID, "class", q.Class), limit)
}

// Execution fetches an execution.
func (c *Client) Execution(ctx context.Context, id string) (Response[Execution], error) {
	return do[Execution](ctx, c, http.MethodGet, at(executionsPath, id, ""), nil)
}

// EnvValue is the value of an environment variable of an execution.
type EnvValue struct {
	Value  string
	Plain  bool   // not secret: not masked in the output
	Secret string // name of a named secret, instead of a value
}

// MarshalJSON encodes a secret value as a string, and a plain one as an object.
func (v EnvValue) MarshalJSON() ([]byte, error) {
	if v.Secret != "" {
		return json.Marshal(SecretRef{v.Secret})
	}
	if !v.Plain {
		return json.Marshal(v.Value)
	}
	return json.Marshal(struct {
		Value  string `json:"value"`
		Secret bool   `json:"secret"`
	}{Value: v.Value})
}

// ResourceLimits bounds what all processes of an execution together use; 0 is the server's default.
type ResourceLimits struct {
	Memory    int `json:"memory,omitempty"` // MiB
	Swap      int `json:"swap,omitempty"`   // MiB
	PIDs      int `json:"pids,omitempty"`
	CPUWeight int `json:"cpu_weight,omitempty"` // 1 to 10000
	Disk      int `json:"disk,omitempty"`       // MiB
}

// SecretRef stands for the value of a named secret.
type SecretRef struct {
	Secret string `json:"secret"`
}

// ExecutionCreate describes an execution without a stored trigger.
type ExecutionCreate struct {
	Name             string              `json:"name"`
	Backend          string              `json:"backend"`
	Command          []string            `json:"command,omitempty"`
	TTY              bool                `json:"tty,omitempty"`
	Prompt           *string             `json:"prompt,omitempty"`
	Model            string              `json:"model,omitempty"`
	Permission       string              `json:"permission,omitempty"`
	Sandbox          string              `json:"sandbox,omitempty"`
	Limits           *ResourceLimits     `json:"limits,omitempty"`
	FailWithoutLogin bool                `json:"fail_without_login,omitempty"`
	WorkingDir       string              `json:"working_dir"`
	TimeoutSeconds   *int                `json:"timeout_seconds,omitempty"`
	Env              map[string]EnvValue `json:"env,omitempty"`
}

// CreateExecution starts an execution without a stored trigger.
func (c *Client) CreateExecution(ctx context.Context, e ExecutionCreate) (Response[Accepted], error) {
	return do[Accepted](ctx, c, http.MethodPost, executionsPath, e)
}

// CancelExecution cancels an execution.
func (c *Client) CancelExecution(ctx context.Context, id string) (Response[Execution], error) {
	return do[Execution](ctx, c, http.MethodPost, at(executionsPath, id, "/cancel"), nil)
}

// RetryExecution runs an ended execution again, as a new execution.
func (c *Client) RetryExecution(ctx context.Context, id string) (Response[Accepted], error) {
	return do[Accepted](ctx, c, http.MethodPost, at(executionsPath, id, "/retry"), nil)
}

// PinExecution excludes an execution and its log from retention.
func (c *Client) PinExecution(ctx context.Context, id string) (Response[Execution], error) {
	return do[Execution](ctx, c, http.MethodPost, at(executionsPath, id, "/pin"), nil)
}

// UnpinExecution applies the retention limits to an execution again.
func (c *Client) UnpinExecution(ctx context.Context, id string) (Response[Execution], error) {
	return do[Execution](ctx, c, http.MethodPost, at(executionsPath, id, "/unpin"), nil)
}

// PauseRequest holds the options of a pause.
type PauseRequest struct {
	Reason  string `json:"reason,omitempty"`
	Seconds int    `json:"seconds,omitempty"` // 0 means the server's default
}

// PauseExecution stops the processes of a running execution.
func (c *Client) PauseExecution(ctx context.Context, id string, p PauseRequest) (Response[Execution], error) {
	return do[Execution](ctx, c, http.MethodPost, at(executionsPath, id, "/pause"), p)
}

// ContinueRequest holds the options of a continuation.
type ContinueRequest struct {
	CeilingUSD *float64 `json:"ceiling_usd,omitempty"` // new cost ceiling; 0 removes it
}

// ContinueExecution continues a paused execution.
func (c *Client) ContinueExecution(ctx context.Context, id string, r ContinueRequest) (Response[Execution], error) {
	return do[Execution](ctx, c, http.MethodPost, at(executionsPath, id, "/continue"), r)
}

// LogPage is a part of a log.
type LogPage struct {
	Lines []Line `json:"lines"`
	Next  int64  `json:"next_after"`
}

// Log fetches at most 1000 lines of a log after a line.
func (c *Client) Log(ctx context.Context, id string, after int64) (Response[LogPage], error) {
	return do[LogPage](ctx, c, http.MethodGet, at(executionsPath, id, fmt.Sprintf("/log?limit=1000&after=%d", after)), nil)
}
