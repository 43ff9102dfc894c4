package api

import (
	"context"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/attention"
	"github.com/agented/agented/internal/api/channels"
	"github.com/agented/agented/internal/api/conversations"
	"github.com/agented/agented/internal/api/diffs"
	"github.com/agented/agented/internal/api/hooks"
	"github.com/agented/agented/internal/api/identity"
	"github.com/agented/agented/internal/api/messages"
	"github.com/agented/agented/internal/api/publications"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/api/secrets"
)

// allRoutes connects the handlers of all nouns with what they work with, and
// returns every route with the role that it requires, including those of the
// pages, in the order of the documentation. RoleNone is public; a test lists the
// public routes.
func (s *Server) allRoutes(pages []rest.Route) []rest.Route {
	o, db, changes := s.o, s.o.DB, s.streams.Changes
	log := &auditLog{db: db, log: o.Log, now: s.now, mask: s.mask}
	env := envViews{sealer: s.sealer, mask: s.mask}
	plans := &schedules{db: db, zone: o.Config.Zone, now: s.now, mask: s.mask}
	if plans.zone == nil {
		plans.zone = time.Local
	}
	calls := hooks.New(hooks.Options{
		DB: db, Intake: s.intake, Sealer: s.sealer, Router: s.rest, Now: s.now, Mask: s.mask, Note: log.note, Pulls: s.pulls,
		Trigger: func(ctx context.Context, id string) (*agented.Trigger, error) { return findTrigger(ctx, db, id) },
	})
	triggers := &triggers{
		db: db, schedules: plans, hooks: calls, agents: o.Dispatch, runs: o.Dispatch, scheduler: o.Scheduler, sealer: s.sealer, env: env,
		audit: log, changes: changes, log: o.Log, config: s.rest.Config, now: s.now, masker: s.masker,
	}
	executions := &executions{
		db: db, runs: o.Dispatch, agents: o.Dispatch, sealer: s.sealer, audit: log, log: o.Log, now: s.now, masker: s.masker,
	}
	agents := &agents{db: db, directory: o.Dispatch, sealer: s.sealer, env: env, changes: changes, now: s.now, mask: s.mask}
	s.accounts = &accounts{
		db: db, sealer: s.sealer, runs: o.Dispatch, queue: o.Dispatch, changes: changes, now: s.now, mask: s.mask, secretsChanged: o.SecretsChanged,
	}
	s.channels = &channels.Channels{
		DB: db, Sealer: s.sealer, Notifier: o.Notifier, Guard: o.NotifyGuard, Zone: o.Config.Zone, Now: s.now, Changed: s.accounts.changed,
	}
	return slices.Concat(
		triggers.routes(), plans.routes(), executions.routes(),
		(&retentions{db: db, keep: o.Keep}).routes(), (&backups{keep: o.Keep}).routes(),
		(&logs{db: db, streams: s.streams, layout: o.Layout, masker: s.masker, schemaOf: s.rest.SchemaOf}).routes(),
		diffs.Routes(diffs.Options{DB: db, Layout: o.Layout, Streams: s.streams, Masker: s.masker}),
		publications.Routes(publications.Options{DB: db, Masker: s.masker, Now: s.now, Note: log.note, Decided: o.PublicationDecided}),
		identity.Routes(identity.Options{DB: db, Auth: s.auth, Now: s.now, Note: log.note}),
		s.serverRoutes(log), pages, calls.Routes(), agents.routes(),
		[]rest.Route{triggers.applyRoute(), agents.applyRoute()},
		s.accounts.routes(),
		conversations.Routes(conversations.Options{
			DB: db, Turns: o.Turns, AgentID: o.Dispatch.AgentID, Streams: s.streams, Layout: o.Layout, Log: o.Log, Now: s.now, Mask: s.mask, Note: log.note,
		}),
		messages.Routes(messages.Options{DB: db, Messenger: o.Dispatch, Streams: s.streams, Now: s.now, Mask: s.mask, Note: log.note}),
		executions.pauseRoutes(),
		(&budgets{db: db, guard: o.Budgets, queue: o.Dispatch, changes: changes, now: s.now}).routes(),
		(&usageReports{db: db, prices: o.Prices, now: s.now}).routes(),
		(&secrets.Secrets{DB: db, Vault: o.Vault, Changed: s.accounts.changed}).Routes(),
		s.channels.Routes(),
	)
}

// serverRoutes returns the routes of the server itself.
func (s *Server) serverRoutes(log *auditLog) []rest.Route {
	o := s.o
	operation := &operation{db: o.DB, operator: o.Operator, audit: log}
	return slices.Concat(
		(&overview{
			db: o.DB, operation: operation, keep: o.Keep, layout: o.Layout, version: o.Version, started: s.started, log: o.Log,
			config: s.rest.Config, healthy: s.healthy, now: s.now, masker: s.masker, sandbox: o.Sandbox,
		}).routes(),
		s.attention().Routes(),
		(&information{version: o.Version, node: o.Node, key: o.Key, started: s.started, config: s.rest.Config, now: s.now, mask: s.mask, sandbox: o.Sandbox}).routes(),
		operation.routes(),
		log.routes(),
		(&health{
			db: o.DB, operation: operation, keep: o.Keep, log: o.Log, draining: s.draining.Load, healthy: s.healthy, schemaOf: s.rest.SchemaOf,
		}).routes(),
		s.documentRoutes(),
	)
}

// attention returns the handler of what waits for a person.
func (s *Server) attention() *attention.Attention {
	return &attention.Attention{
		DB: s.o.DB, Mask: s.mask, Now: s.now, Notices: s.o.Keep.texts,
		Unverified: func() bool { return s.rest.Config().GitHubWebhookSecret.Reveal() == "" },
		Hints: func(t *agented.Trigger) (out []attention.Hint) {
			for _, v := range triggerHints(s.rest.Config(), t) {
				out = append(out, attention.Hint{Text: v.Text, Fix: v.Fix})
			}
			return out
		},
	}
}

// documentRoutes returns the routes of the metrics and of the OpenAPI document.
func (s *Server) documentRoutes() []rest.Route {
	const viewer = agented.RoleViewer
	return []rest.Route{
		rest.Raw("GET /metrics", viewer, s.o.Metrics.Handler().ServeHTTP, rest.About{
			ID: "get-metrics", Tag: "server", Summary: "Prometheus metrics", Text: "Public while the server is bound to loopback only and no proxy is in between.",
			Answers: map[string]*huma.Response{"200": rest.Describe("The metrics", "text/plain")},
		}).Local(),
		rest.Raw("GET /openapi.json", viewer, s.rest.ServeJSON, rest.About{
			ID: "get-openapi-json", Tag: "server", Summary: "OpenAPI document as JSON", Text: "OpenAPI 3.1.",
			Answers: map[string]*huma.Response{"200": {Description: "The document", Content: map[string]*huma.MediaType{"application/json": {}}}},
		}).Page().Reaching(rest.Everything),
		rest.Raw("GET /openapi.yaml", viewer, s.rest.ServeYAML, rest.About{
			ID: "get-openapi-yaml", Tag: "server", Summary: "OpenAPI document as YAML", Text: "OpenAPI 3.1.",
			Answers: map[string]*huma.Response{"200": {Description: "The document", Content: map[string]*huma.MediaType{"application/yaml": {}}}},
		}).Page().Reaching(rest.Everything),
	}
}
