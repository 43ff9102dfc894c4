package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/store"
)

// health handles the probes.
type health struct {
	db        *store.DB
	operation *operation
	keep      Maintenance
	log       *slog.Logger
	draining  func() bool
	healthy   func() error // an error if no execution would be started or no schedule fired
	schemaOf  func(any) *huma.Schema
}

// routes returns the routes of the probes.
func (h *health) routes() []rest.Route {
	const anyone = agented.RoleNone
	return []rest.Route{
		rest.Raw("GET /health/liveness", anyone, h.liveness(), rest.About{
			ID: "get-liveness", Tag: "server", Summary: "Liveness probe", Text: "Returns 200 while the process responds.",
			Answers: map[string]*huma.Response{"200": h.answer("The process responds")},
		}),
		rest.Raw("GET /health/readiness", anyone, h.readiness(), rest.About{
			ID: "get-readiness", Tag: "server", Summary: "Readiness probe", Text: "Returns 503 with the failed check: draining, store or dispatcher.",
			Answers: map[string]*huma.Response{"200": h.answer("Ready"), "503": h.answer("Not ready")},
		}),
	}
}

// Health is the health of the server.
type Health struct {
	Status string `json:"status" enum:"ok,unavailable"`
	Check  string `json:"check,omitempty" enum:"draining,store,dispatcher" doc:"The check that failed"`
}

func (h *health) answer(text string) *huma.Response {
	return &huma.Response{Description: text, Content: map[string]*huma.MediaType{"application/json": {Schema: h.schemaOf(Health{})}}}
}

// liveness reports that the process responds. It does not check dependencies: a
// full disk is no reason to restart the process.
func (h *health) liveness() http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { answerHealth(w, "") }
}

// readiness reports whether the server can take requests. It is public, so it
// returns only the name of the failed check.
func (h *health) readiness() http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		failed := ""
		var err error
		switch {
		case h.draining():
			failed = "draining"
		default:
			if err = h.db.Ping(ctx); err != nil {
				failed = "store"
			} else if err = h.healthy(); err != nil {
				failed = "dispatcher"
			}
		}
		if err != nil {
			h.log.Warn("not ready", "check", failed, "err", err)
		}
		notices := h.keep.notices()
		if h.operation.drained() != nil {
			notices = append(notices, "drained")
		}
		answerHealth(w, failed, notices...)
	}
}

func answerHealth(w http.ResponseWriter, failed string, notices ...string) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	if failed == "" {
		if len(notices) > 0 { // working, but needs attention
			_ = json.NewEncoder(w).Encode(map[string]any{"status": "ok", "notices": notices})
			return
		}
		_, _ = w.Write([]byte(`{"status":"ok"}` + "\n"))
		return
	}
	h.Set("Retry-After", "2")
	w.WriteHeader(http.StatusServiceUnavailable)
	_ = json.NewEncoder(w).Encode(map[string]string{"status": "unavailable", "check": failed})
}
