package api

import (
	"context"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
)

// Operator does to the running server what its operators ask for. The app is one.
type Operator interface {
	// Reload reads the settings again. On an error nothing has changed.
	Reload() (*Reloaded, error)
	// Drained is nil while executions are started.
	Drained() *Drained
	// SetDrained has executions started no more, or again.
	SetDrained(ctx context.Context, on bool, by string) error
}

// Reloaded is what came of reading the settings again.
type Reloaded struct {
	Changed  []string `json:"changed" doc:"Settings with another value than before, in use from now on"`
	Restart  []string `json:"restart" doc:"Settings with another value than before, for which the server has to be restarted"`
	Warnings []string `json:"warnings" doc:"What is odd about the settings"`
	File     string   `json:"file" doc:"The settings file that was read; empty if there is none"`
}

// Drained is since when no execution is started, and who asked for that.
type Drained struct {
	Since time.Time `json:"since"`
	By    string    `json:"by" doc:"A user's name, or key NAME"`
}

// DrainView is whether executions are started.
type DrainView struct {
	Drained bool       `json:"drained" doc:"New executions are admitted and wait"`
	Since   *time.Time `json:"since" nullable:"true"`
	By      string     `json:"by" doc:"Who asked for it; empty while nobody did"`
	Running int64      `json:"running" doc:"Executions that run"`
	Pending int64      `json:"pending" doc:"Executions that wait, for whatever reason"`
}

type drainInput struct {
	Body struct {
		Drained bool `json:"drained" doc:"True: start no more executions. False: start them again"`
	}
}

func (s *Server) operator() (Operator, error) {
	if s.o.Operator == nil {
		return nil, agented.Errorf(agented.Unavailable, "this server cannot be operated over its API")
	}
	return s.o.Operator, nil
}

func (s *Server) reload(ctx context.Context, _ *struct{}) (*output[Reloaded], error) {
	op, err := s.operator()
	if err != nil {
		return nil, err
	}
	out, err := op.Reload()
	if err != nil {
		return nil, err
	}
	s.auditOperation(ctx, "settings.reload", "")
	return &output[Reloaded]{*out}, nil
}

func (s *Server) getDrain(ctx context.Context, _ *struct{}) (*output[DrainView], error) {
	return s.showDrain(ctx)
}

func (s *Server) setDrain(ctx context.Context, in *drainInput) (*output[DrainView], error) {
	op, err := s.operator()
	if err != nil {
		return nil, err
	}
	if err := op.SetDrained(ctx, in.Body.Drained, principal(ctx).Name); err != nil {
		return nil, err
	}
	detail := "off"
	if in.Body.Drained {
		detail = "on"
	}
	s.auditOperation(ctx, "server.drain", detail)
	return s.showDrain(ctx)
}

func (s *Server) showDrain(ctx context.Context) (*output[DrainView], error) {
	counts, err := s.o.DB.Counts(ctx)
	if err != nil {
		return nil, err
	}
	v := DrainView{Running: counts[agented.StateRunning], Pending: counts[agented.StatePending]}
	if d := s.drained(); d != nil {
		since := shown(d.Since)
		v.Drained, v.Since, v.By = true, &since, d.By
	}
	return &output[DrainView]{v}, nil
}

// drained is nil while executions are started.
func (s *Server) drained() *Drained {
	if s.o.Operator == nil {
		return nil
	}
	return s.o.Operator.Drained()
}

func (s *Server) auditOperation(ctx context.Context, action, detail string) {
	s.note(ctx, "operation", func(ctx context.Context) error {
		return s.o.DB.Audit(ctx, store.AuditEntry{At: s.now(), Actor: principal(ctx).Name, Action: action, Detail: detail})
	})
}
