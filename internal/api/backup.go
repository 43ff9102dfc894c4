package api

import (
	"context"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
)

// BackupView is the state of the scheduled backups.
type BackupView struct {
	Enabled        bool       `json:"enabled"`
	Schedule       string     `json:"schedule"`
	Folder         string     `json:"dir"`
	LastSuccess    *time.Time `json:"last_success_at" nullable:"true"`
	LastFile       string     `json:"last_file"`
	LastBytes      int64      `json:"last_bytes"`
	LastDurationMS int64      `json:"last_duration_ms" doc:"Milliseconds to write and verify it"`
	LastFailure    *time.Time `json:"last_failure_at" nullable:"true"`
	LastError      string     `json:"last_error" doc:"Empty if the last one succeeded"`
	Running        bool       `json:"running"`
	Next           *time.Time `json:"next_at" nullable:"true"`
	Problem        string     `json:"problem" doc:"What is wrong: the last backup failed, or one was missed; empty if all is well"`
}

// backups handles the requests about scheduled backups.
type backups struct{ keep Maintenance }

// routes returns the route of backups.
func (h *backups) routes() []rest.Route {
	return []rest.Route{
		rest.Op("GET /api/v1/backup", agented.RoleAdmin, h.get, rest.About{
			ID: "get-backup", Tag: "server", Summary: "Show the state of backups",
			Text: "The server takes backups according to AGENTED_BACKUP_DIR and AGENTED_BACKUP_SCHEDULE; `agented backup` on its machine takes one manually.",
		}),
	}
}

func (h *backups) get(_ context.Context, _ *struct{}) (*rest.Output[BackupView], error) {
	b := h.keep.backup()
	return rest.Reply(BackupView{
		Enabled: b.Enabled, Schedule: b.Schedule, Folder: b.Dir, LastSuccess: rest.OptionalTime(b.LastSuccess), LastFile: b.LastFile, LastBytes: b.LastBytes,
		LastDurationMS: b.LastDurationMS, LastFailure: rest.OptionalTime(b.LastFailure), LastError: b.LastError, Running: b.Running, Next: rest.OptionalTime(b.Next), Problem: b.Problem,
	}), nil
}
