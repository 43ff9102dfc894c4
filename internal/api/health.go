package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/store"
)

// Node is the queue of this node and its state.
type Node interface {
	Deliver(ctx context.Context, in dispatch.Inbound) (store.DeliveryResult, error)
	Wake()
	BudgetsChanged(ctx context.Context) error
	Running() int
	ToResume() int
	Healthy() error
}

// liveness reports that the process responds. It does not check dependencies: a
// full disk is no reason to restart the process.
func (s *Server) liveness() http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { health(w, "") }
}

// readiness reports whether the server can take requests. It is public, so it
// returns only the name of the failed check.
func (s *Server) readiness() http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		failed := ""
		var err error
		switch {
		case s.draining.Load():
			failed = "draining"
		default:
			if err = s.o.DB.Ping(ctx); err != nil {
				failed = "store"
			} else if err = s.healthy(); err != nil {
				failed = "dispatcher"
			}
		}
		if err != nil {
			s.o.Log.Warn("not ready", "check", failed, "err", err)
		}
		notices := s.o.Keep.notices()
		if s.drained() != nil {
			notices = append(notices, "drained")
		}
		health(w, failed, notices...)
	}
}

func health(w http.ResponseWriter, failed string, notices ...string) {
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
