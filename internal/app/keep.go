package app

import (
	"context"
	"io"
	"time"

	"github.com/agented/agented/internal/backup"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/dispatch"
)

// reserve is how much of the disk stays free of new executions. Attempts that run
// are ended at a quarter of it.
func reserve(c *config.Config) int64 { return int64(c.MinFreeMB) << 20 }

// retention is what the settings of the moment say.
func (a *App) retention() dispatch.Retention {
	c := a.config.Load()
	days := func(n int) time.Duration { return time.Duration(n) * 24 * time.Hour }
	return dispatch.Retention{
		Executions: days(c.KeepRunsDays), MaxExecutions: int64(c.KeepRuns),
		Logs: days(c.KeepLogsDays), MaxLogBytes: int64(c.KeepLogsMB) << 20,
		Bodies: days(c.KeepBodiesDays), Deliveries: days(c.KeepCallsDays), Ticks: days(c.KeepTicksDays), Audit: days(c.KeepAuditDays), Keys: days(c.KeepKeysDays),
	}
}

// hold keeps a backup from copying files while they are removed.
func (a *App) hold() (io.Closer, error) { return backup.Lock(a.layout) }

// planBackups makes what takes the scheduled backups; nil if there are none.
func (a *App) planBackups(ctx context.Context) (*backup.Keeper, error) {
	c := a.o.Config
	if c.BackupDir == "" {
		if _, err := backup.CheckSchedule(c.BackupSchedule); err != nil {
			return nil, err
		}
		return nil, nil
	}
	if c.BackupPassphrase != "" {
		if _, err := backup.ReadPassphrase(c.BackupPassphrase); err != nil {
			return nil, err // better now than at three in the morning
		}
	}
	return backup.NewKeeper(ctx, backup.Plan{
		Source: backup.Source{
			Layout: a.layout, DBPath: c.DBPath, Key: a.key.Reveal(), KeyID: a.key.ID(), Program: a.o.Version, MinFree: reserve(c) / 4,
		},
		DB: a.db, Dir: c.BackupDir, Schedule: c.BackupSchedule, Zone: c.Zone, Keep: c.BackupKeep, PassphraseFile: c.BackupPassphrase, Log: a.o.Log,
	})
}
