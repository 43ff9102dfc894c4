package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

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

func (s *Server) operator() (Operator, error) {
	if s.o.Operator == nil {
		return nil, agented.Errorf(agented.Unavailable, "this server cannot be operated over its API")
	}
	return s.o.Operator, nil
}

func (s *Server) reload(ctx context.Context, _ *struct{}) (*rest.Output[Reloaded], error) {
	op, err := s.operator()
	if err != nil {
		return nil, err
	}
	out, err := op.Reload()
	if err != nil {
		return nil, err
	}
	s.auditOperation(ctx, "settings.reload", "")
	return rest.Reply(*out), nil
}

func (s *Server) getDrain(ctx context.Context, _ *struct{}) (*rest.Output[DrainView], error) {
	return s.showDrain(ctx)
}

func (s *Server) setDrain(ctx context.Context, in *drainInput) (*rest.Output[DrainView], error) {
	op, err := s.operator()
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
	s.auditOperation(ctx, "server.drain", detail)
	return s.showDrain(ctx)
}

func (s *Server) showDrain(ctx context.Context) (*rest.Output[DrainView], error) {
	counts, err := s.o.DB.Counts(ctx)
	if err != nil {
		return nil, err
	}
	v := DrainView{Running: counts[agented.StateRunning], Pending: counts[agented.StatePending]}
	if d := s.drained(); d != nil {
		since := rest.Time(d.Since)
		v.Drained, v.Since, v.By = true, &since, d.By
	}
	return rest.Reply(v), nil
}

// drained returns nil unless the server is drained.
func (s *Server) drained() *Drained {
	if s.o.Operator == nil {
		return nil
	}
	return s.o.Operator.Drained()
}

func (s *Server) auditOperation(ctx context.Context, action, detail string) {
	s.note(ctx, "operation", func(ctx context.Context) error {
		return s.o.DB.Audit(ctx, store.AuditEntry{At: s.now(), Actor: rest.Principal(ctx).Name, Action: action, Detail: detail})
	})
}

// serverRoutes returns the routes of the server itself.
func (s *Server) serverRoutes() []rest.Route {
	const anyone, viewer, admin = agented.RoleNone, agented.RoleViewer, agented.RoleAdmin
	overview := &overview{s: s}
	return []rest.Route{
		rest.Op("GET /api/v1/overview", viewer, overview.get, rest.About{
			ID: "get-overview", Tag: "server", Summary: "Show current activity", Text: "Returns running executions with their last line, waiting ones with the reason, failures since yesterday, the next due times, executions by day and outcome, and the health of the server.",
		}),
		rest.Op("GET /api/v1/info", viewer, s.info, rest.About{
			ID: "get-info", Tag: "server", Summary: "Show server information", Text: "Returns version, node id, and the backends and placeholders that triggers can use.",
		}),
		rest.Op("GET /api/v1/config", admin, s.settings, rest.About{
			ID: "get-config", Tag: "server", Summary: "Show the settings", Text: "Lists all settings with their sources. Secrets are masked.",
		}),
		rest.Op("POST /api/v1/reload", admin, s.reload, rest.About{
			ID: "reload-settings", Tag: "server", Summary: "Reload the settings", Status: http.StatusOK,
			Text: "Rereads the settings like SIGHUP. Returns the settings that changed and those that require a restart. Invalid settings change nothing; the error names file and line.",
		}),
		rest.Op("GET /api/v1/drain", viewer, s.getDrain, rest.About{
			ID: "get-drain", Tag: "server", Summary: "Show drain mode", Text: "Returns whether the server is drained, and the numbers of running and pending executions.",
		}),
		rest.Op("PUT /api/v1/drain", admin, s.setDrain, rest.About{
			ID: "set-drain", Tag: "server", Summary: "Set drain mode", Text: "While the server is drained, new executions are stored but not started; running ones continue. The mode persists over a restart.",
		}),
		rest.Op("GET /api/v1/audit", admin, s.listAudit, rest.About{
			ID: "list-audit", Tag: "server", Summary: "List the audit log", Text: "Lists changes of triggers, users and keys, logins and similar actions, newest first.",
		}),
		rest.Raw("GET /health/liveness", anyone, s.liveness(), rest.About{
			ID: "get-liveness", Tag: "server", Summary: "Liveness probe", Text: "Returns 200 while the process responds.",
			Answers: map[string]*huma.Response{"200": s.healthAnswer("The process responds")},
		}),
		rest.Raw("GET /health/readiness", anyone, s.readiness(), rest.About{
			ID: "get-readiness", Tag: "server", Summary: "Readiness probe", Text: "Returns 503 with the failed check: draining, store or dispatcher.",
			Answers: map[string]*huma.Response{"200": s.healthAnswer("Ready"), "503": s.healthAnswer("Not ready")},
		}),
		rest.Raw("GET /metrics", viewer, s.o.Metrics.Handler().ServeHTTP, rest.About{
			ID: "get-metrics", Tag: "server", Summary: "Prometheus metrics", Text: "Public while the server is bound to loopback only and no proxy is in between.",
			Answers: map[string]*huma.Response{"200": rest.Describe("The metrics", "text/plain")},
		}).Local(),
		rest.Raw("GET /openapi.json", viewer, s.rest.ServeJSON, rest.About{
			ID: "get-openapi-json", Tag: "server", Summary: "OpenAPI document as JSON", Text: "OpenAPI 3.1.",
			Answers: map[string]*huma.Response{"200": {Description: "The document", Content: map[string]*huma.MediaType{"application/json": {}}}},
		}).Page(),
		rest.Raw("GET /openapi.yaml", viewer, s.rest.ServeYAML, rest.About{
			ID: "get-openapi-yaml", Tag: "server", Summary: "OpenAPI document as YAML", Text: "OpenAPI 3.1.",
			Answers: map[string]*huma.Response{"200": {Description: "The document", Content: map[string]*huma.MediaType{"application/yaml": {}}}},
		}).Page(),
	}
}
