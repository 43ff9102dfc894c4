package app

import (
	"context"
	"io"
	"time"

	"github.com/agented/agented/internal/backup"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/retention"
)

// reserve is the free disk space in bytes below which no execution starts. Running attempts are
// stopped at a quarter of it.
func reserve(c *config.Config) int64 { return int64(c.MinFreeMB) << 20 }

// retention returns the current retention settings.
func (a *App) retention() retention.Settings {
	c := a.config.Load()
	days := func(n int) time.Duration { return time.Duration(n) * 24 * time.Hour }
	return retention.Settings{
		Executions: days(c.KeepExecutionsDays), MaxExecutions: int64(c.KeepExecutions),
		Logs: days(c.KeepLogsDays), MaxLogBytes: int64(c.KeepLogsMB) << 20,
		Bodies: days(c.KeepBodiesDays), Deliveries: days(c.KeepDeliveriesDays), Ticks: days(c.KeepTicksDays), Audit: days(c.KeepAuditDays), Keys: days(c.KeepIdempotencyDays),
	}
}

// hold locks the files, so that no backup copies them while they are removed.
func (a *App) hold() (io.Closer, error) { return backup.Lock(a.layout) }

// planBackups returns the scheduler of backups, or nil if there are none.
func (a *App) planBackups(ctx context.Context) (*backup.Scheduler, error) {
	c := a.o.Config
	if c.BackupDir == "" {
		if _, err := backup.CheckSchedule(c.BackupSchedule); err != nil {
			return nil, err
		}
		return nil, nil
	}
	if c.BackupPassphrase != "" {
		if _, err := backup.ReadPassphrase(c.BackupPassphrase); err != nil {
			return nil, err // report problems at the start instead of at the first backup
		}
	}
	return backup.NewScheduler(ctx, backup.Plan{
		Source: backup.Source{
			Layout: a.layout, DBPath: c.DBPath, Key: a.key.Reveal(), KeyID: a.key.ID(), Program: a.o.Version, MinFree: reserve(c) / 4,
		},
		DB: a.db, Dir: c.BackupDir, Schedule: c.BackupSchedule, Zone: c.Zone, Keep: c.BackupKeep, PassphraseFile: c.BackupPassphrase, Log: a.o.Log,
	})
}
