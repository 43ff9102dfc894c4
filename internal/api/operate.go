package api

import (
	"context"
	"net/http"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/store"
)

// Operator performs operations on the running server. The app implements it.
type Operator interface {
	// Reload rereads the settings. On an error nothing changes.
	Reload() (*Reloaded, error)
	// Drained returns nil unless the server is drained.
	Drained() *Drained
	// SetDrained turns drain mode on or off.
	SetDrained(ctx context.Context, on bool, by string) error
}

// Reloaded is the result of rereading the settings.
type Reloaded struct {
	Changed  []string `json:"changed" doc:"Settings that changed and are in use from now on"`
	Restart  []string `json:"restart" doc:"Settings that changed and require a restart"`
	Warnings []string `json:"warnings" doc:"Warnings about the settings"`
	File     string   `json:"file" doc:"The settings file that was read; empty if there is none"`
}

// Drained is when drain mode was turned on, and by whom.
type Drained struct {
	Since time.Time `json:"since"`
	By    string    `json:"by" doc:"User name, or key NAME"`
}

// DrainView is the state of drain mode.
type DrainView struct {
	Drained bool       `json:"drained" doc:"New executions are stored but not started"`
	Since   *time.Time `json:"since" nullable:"true"`
	By      string     `json:"by" doc:"Who turned it on; empty while it is off"`
	Running int64      `json:"running" doc:"Running executions"`
	Pending int64      `json:"pending" doc:"Pending executions, for whatever reason"`
}

type drainInput struct {
	Body struct {
		Drained bool `json:"drained" doc:"true: start no executions. false: start them again"`
	}
}

// operation handles the requests to reload and to drain the server.
type operation struct {
	db       *store.DB
	operator Operator // nil: the server cannot be operated
	audit    *auditLog
}

// routes returns the routes of operations on the server.
func (h *operation) routes() []rest.Route {
	const viewer, admin = agented.RoleViewer, agented.RoleAdmin
	return []rest.Route{
		rest.Op("POST /api/v1/reload", admin, h.reload, rest.About{
			ID: "reload-settings", Tag: "server", Summary: "Reload the settings", Status: http.StatusOK,
			Text: "Rereads the settings like SIGHUP. Returns the settings that changed and those that require a restart. Invalid settings change nothing; the error names file and line.",
		}),
		rest.Op("GET /api/v1/drain", viewer, h.getDrain, rest.About{
			ID: "get-drain", Tag: "server", Summary: "Show drain mode", Text: "Returns whether the server is drained, and the numbers of running and pending executions.",
		}),
		rest.Op("PUT /api/v1/drain", admin, h.setDrain, rest.About{
			ID: "set-drain", Tag: "server", Summary: "Set drain mode", Text: "While the server is drained, new executions are stored but not started; running ones continue. The mode persists over a restart.",
		}),
	}
}

func (h *operation) get() (Operator, error) {
	if h.operator == nil {
		return nil, agented.Errorf(agented.Unavailable, "this server cannot be operated over its API")
	}
	return h.operator, nil
}

func (h *operation) reload(ctx context.Context, _ *struct{}) (*rest.Output[Reloaded], error) {
	op, err := h.get()
	if err != nil {
		return nil, err
	}
	out, err := op.Reload()
	if err != nil {
		return nil, err
	}
	h.audit.operation(ctx, "settings.reload", "")
	return rest.Reply(*out), nil
}

func (h *operation) getDrain(ctx context.Context, _ *struct{}) (*rest.Output[DrainView], error) {
	return h.showDrain(ctx)
}

func (h *operation) setDrain(ctx context.Context, in *drainInput) (*rest.Output[DrainView], error) {
	op, err := h.get()
	if err != nil {
		return nil, err
	}
	if err := op.SetDrained(ctx, in.Body.Drained, rest.Principal(ctx).Name); err != nil {
		return nil, err
	}
	detail := "off"
	if in.Body.Drained {
		detail = "on"
	}
	h.audit.operation(ctx, "server.drain", detail)
	return h.showDrain(ctx)
}

func (h *operation) showDrain(ctx context.Context) (*rest.Output[DrainView], error) {
	counts, err := h.db.Counts(ctx)
	if err != nil {
		return nil, err
	}
	v := DrainView{Running: counts[agented.StateRunning], Pending: counts[agented.StatePending]}
	if d := h.drained(); d != nil {
		since := rest.Time(d.Since)
		v.Drained, v.Since, v.By = true, &since, d.By
	}
	return rest.Reply(v), nil
}

// drained returns nil unless the server is drained.
func (h *operation) drained() *Drained {
	if h.operator == nil {
		return nil
	}
	return h.operator.Drained()
}
