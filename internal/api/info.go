package api

import (
	"context"
	"runtime"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/config"
)

// Info describes the server.
type Info struct {
	Version       string         `json:"version"`
	GoVersion     string         `json:"go_version"`
	Platform      string         `json:"platform" example:"linux/amd64"`
	Node          agented.NodeID `json:"node" doc:"Id of this node"`
	StartedAt     time.Time      `json:"started_at"`
	UptimeSeconds int64          `json:"uptime_seconds"`
	Backends      []string       `json:"backends" doc:"The backends that a trigger can use"`
	Placeholders  []Placeholder  `json:"placeholders" doc:"The names that a prompt template can use as {name}"`
	MaxConcurrent int            `json:"max_concurrent" doc:"Concurrent executions on this node"`
}

// Placeholder is a name that a prompt template can use.
type Placeholder struct {
	Name string `json:"name"`
	Help string `json:"help"`
}

func (s *Server) info(context.Context, *struct{}) (*rest.Output[Info], error) {
	out := rest.Reply(Info{
		Version: s.o.Version, GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Node: s.o.Node, StartedAt: rest.Time(s.started), UptimeSeconds: int64(s.now().Sub(s.started).Seconds()),
		Backends: registry.Names(), MaxConcurrent: s.rest.Config().MaxConcurrent,
	})
	for _, p := range agented.Placeholders {
		out.Body.Placeholders = append(out.Body.Placeholders, Placeholder{Name: p.Name, Help: p.Help})
	}
	return out, nil
}

// Settings are the server's settings and their sources.
type Settings struct {
	Items []config.Row `json:"items"`
}

func (s *Server) settings(context.Context, *struct{}) (*rest.Output[Settings], error) {
	rows := s.rest.Config().Show(s.o.Key.Source(), s.o.Key.Fingerprint())
	for i := range rows {
		rows[i].Value = s.mask(rows[i].Value)
	}
	return rest.Reply(Settings{Items: rows}), nil
}
