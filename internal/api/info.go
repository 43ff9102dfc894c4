package api

import (
	"context"
	"runtime"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/config"
)

// Info is what runs here.
type Info struct {
	Version       string         `json:"version"`
	GoVersion     string         `json:"go_version"`
	Platform      string         `json:"platform" example:"linux/amd64"`
	Node          agented.NodeID `json:"node" doc:"This server's id"`
	StartedAt     time.Time      `json:"started_at"`
	UptimeSeconds int64          `json:"uptime_seconds"`
	Backends      []string       `json:"backends" doc:"The backends that a trigger may name"`
	Placeholders  []Placeholder  `json:"placeholders" doc:"What a prompt template may use as {name}"`
	MaxConcurrent int            `json:"max_concurrent" doc:"Executions at once on this node"`
}

// Placeholder is a name that a prompt template may use.
type Placeholder struct {
	Name string `json:"name"`
	Help string `json:"help"`
}

func (s *Server) info(context.Context, *struct{}) (*output[Info], error) {
	out := &output[Info]{Info{
		Version: s.o.Version, GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Node: s.o.Node, StartedAt: shown(s.started), UptimeSeconds: int64(s.now().Sub(s.started).Seconds()),
		Backends: agented.Backends, MaxConcurrent: s.live.Load().config.MaxConcurrent,
	}}
	for _, p := range agented.Placeholders {
		out.Body.Placeholders = append(out.Body.Placeholders, Placeholder{Name: p.Name, Help: p.Help})
	}
	return out, nil
}

// Settings are the server's settings with where each came from.
type Settings struct {
	Items []config.Row `json:"items"`
}

func (s *Server) settings(context.Context, *struct{}) (*output[Settings], error) {
	rows := s.live.Load().config.Show(s.o.Key.Source(), s.o.Key.Fingerprint())
	for i := range rows {
		rows[i].Value = s.mask(rows[i].Value)
	}
	return &output[Settings]{Settings{Items: rows}}, nil
}
