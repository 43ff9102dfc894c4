package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// liveness says that the process answers, and nothing about what it needs: a
// full disk is no reason to kill it.
func (s *Server) liveness() http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { health(w, "") }
}

// readiness says whether requests should be sent here. Open to anyone, so it
// names the check that failed and nothing else.
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
			} else if err = s.o.Dispatch.Healthy(); err != nil {
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
		if len(notices) > 0 { // it works, and somebody should look
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
