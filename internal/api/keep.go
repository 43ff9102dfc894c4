package api

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/backup"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/store"
)

// Keep is what the API asks about room, retention and backups. Nil functions are
// not asked.
type Keep struct {
	Disk      func() dispatch.Disk
	Retention func() dispatch.Retention
	Expirable func(context.Context) (store.Expired, error)
	Prune     func(context.Context) (store.Expired, error)
	Backup    func() backup.Status
}

func (k Keep) disk() dispatch.Disk {
	if k.Disk == nil {
		return dispatch.Disk{Files: -1}
	}
	return k.Disk()
}

func (k Keep) backup() backup.Status {
	if k.Backup == nil {
		return backup.Status{}
	}
	return k.Backup()
}

// notices names what a person should look at although the server works: disk,
// backup.
func (k Keep) notices() []string {
	var out []string
	if k.disk().Low {
		out = append(out, "disk")
	}
	if k.backup().Trouble != "" {
		out = append(out, "backup")
	}
	return out
}

// texts are the notices as sentences.
func (k Keep) texts() []string {
	out := []string{}
	if d := k.disk(); d.Low {
		out = append(out, "The disk of the data folder is nearly full: new executions wait until there is room.")
	}
	if t := k.backup().Trouble; t != "" {
		out = append(out, "Backup: "+t)
	}
	return out
}

func (s *Server) pinExecution(ctx context.Context, in *executionPath) (*output[ExecutionView], error) {
	return s.setPin(ctx, in.ID, true)
}

func (s *Server) unpinExecution(ctx context.Context, in *executionPath) (*output[ExecutionView], error) {
	return s.setPin(ctx, in.ID, false)
}

func (s *Server) setPin(ctx context.Context, text string, on bool) (*output[ExecutionView], error) {
	id, err := executionID(text)
	if err != nil {
		return nil, err
	}
	e, err := s.o.DB.Pin(ctx, id, on, principal(ctx).Name, s.now())
	if err != nil {
		return nil, err
	}
	return &output[ExecutionView]{s.showExecution(e, false)}, nil
}

// RetentionView is what is kept for how long, and what would go now.
type RetentionView struct {
	ExecutionsDays  int64         `json:"executions_days" doc:"Days after its end for which an execution is kept; 0 is for ever, here and below"`
	ExecutionsMax   int64         `json:"executions_max" doc:"Ended executions that are kept; 0 is no limit"`
	LogsDays        int64         `json:"logs_days" doc:"Days after its end for which an execution keeps its folder with the log"`
	LogsMaxBytes    int64         `json:"logs_max_bytes" doc:"What the folders of all ended executions may take; 0 is no limit"`
	DeliveriesDays  int64         `json:"deliveries_days"`
	BodiesDays      int64         `json:"bodies_days"`
	TicksDays       int64         `json:"ticks_days"`
	AuditDays       int64         `json:"audit_days"`
	IdempotencyDays int64         `json:"idempotency_days"`
	ExecutionBytes  int64         `json:"execution_bytes" doc:"What the folders of all ended executions take"`
	DatabaseBytes   int64         `json:"database_bytes"`
	Expired         store.Expired `json:"expired" doc:"What lies beyond the limits; after a prune, what went"`
}

func (s *Server) getRetention(ctx context.Context, _ *struct{}) (*output[RetentionView], error) {
	if s.o.Keep.Expirable == nil {
		return nil, agented.Errorf(agented.Unavailable, "this server keeps everything")
	}
	would, err := s.o.Keep.Expirable(ctx)
	if err != nil {
		return nil, err
	}
	return s.showRetention(ctx, would)
}

func (s *Server) prune(ctx context.Context, _ *struct{}) (*output[RetentionView], error) {
	if s.o.Keep.Prune == nil {
		return nil, agented.Errorf(agented.Unavailable, "this server keeps everything")
	}
	went, err := s.o.Keep.Prune(ctx)
	if err != nil {
		return nil, err
	}
	return s.showRetention(ctx, went)
}

func (s *Server) showRetention(ctx context.Context, e store.Expired) (*output[RetentionView], error) {
	days := func(d time.Duration) int64 { return int64(d / (24 * time.Hour)) }
	r := s.o.Keep.Retention()
	v := RetentionView{
		ExecutionsDays: days(r.Executions), ExecutionsMax: r.MaxExecutions, LogsDays: days(r.Logs), LogsMaxBytes: r.MaxLogBytes,
		DeliveriesDays: days(r.Deliveries), BodiesDays: days(r.Bodies), TicksDays: days(r.Ticks), AuditDays: days(r.Audit),
		IdempotencyDays: days(r.Keys), Expired: e,
	}
	var err error
	if v.ExecutionBytes, err = s.o.DB.ExecutionBytes(ctx); err != nil {
		return nil, err
	}
	if v.DatabaseBytes, err = s.o.DB.Bytes(); err != nil {
		return nil, err
	}
	return &output[RetentionView]{v}, nil
}

// BackupView is how the scheduled backups stand.
type BackupView struct {
	Enabled     bool       `json:"enabled"`
	Schedule    string     `json:"schedule"`
	Folder      string     `json:"dir"`
	LastSuccess *time.Time `json:"last_success_at" nullable:"true"`
	LastFile    string     `json:"last_file"`
	LastBytes   int64      `json:"last_bytes"`
	LastTookMS  int64      `json:"last_took_ms" doc:"To write it and to read it back"`
	LastFailure *time.Time `json:"last_failure_at" nullable:"true"`
	LastError   string     `json:"last_error" doc:"Empty if the last one was good"`
	Running     bool       `json:"running"`
	Next        *time.Time `json:"next_at" nullable:"true"`
	Trouble     string     `json:"trouble" doc:"What is wrong: the last one failed, or one was not taken; empty if nothing is"`
}

func (s *Server) getBackup(_ context.Context, _ *struct{}) (*output[BackupView], error) {
	b := s.o.Keep.backup()
	return &output[BackupView]{BackupView{
		Enabled: b.Enabled, Schedule: b.Schedule, Folder: b.Dir, LastSuccess: known(b.LastSuccess), LastFile: b.LastFile, LastBytes: b.LastBytes,
		LastTookMS: b.LastTookMS, LastFailure: known(b.LastFailure), LastError: b.LastError, Running: b.Running, Next: known(b.Next), Trouble: b.Trouble,
	}}, nil
}

// watchKeep adds the figures of disk, retention and backups.
func (m *Metrics) watchKeep(s *Server) {
	gauge := func(name, help string, f func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
	}
	keep := s.o.Keep
	gauge("agented_disk_free_bytes", "Free bytes where the data folder is.", func() float64 { return float64(keep.disk().Free) })
	gauge("agented_disk_low", "1 while new executions wait for room on the disk.", func() float64 {
		if keep.disk().Low {
			return 1
		}
		return 0
	})
	gauge("agented_execution_bytes", "What the folders of ended executions take on the disk.", func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		n, err := s.o.DB.ExecutionBytes(ctx)
		if err != nil {
			return 0
		}
		return float64(n)
	})
	gauge("agented_database_bytes", "Size of the database with its write-ahead log.", func() float64 {
		n, err := s.o.DB.Bytes()
		if err != nil {
			return 0
		}
		return float64(n)
	})
	gauge("agented_backup_last_success_timestamp_seconds", "When the last scheduled backup was taken and found good; 0 if none was.", func() float64 {
		if at := keep.backup().LastSuccess; !at.IsZero() {
			return float64(at.Unix())
		}
		return 0
	})
	gauge("agented_backup_last_bytes", "Size of the last scheduled backup.", func() float64 { return float64(keep.backup().LastBytes) })
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "agented_backup_failures_total", Help: "Scheduled backups that failed since the start.",
	}, func() float64 { return float64(keep.backup().Failures) }))
	gauge("agented_backup_trouble", "1 when the last scheduled backup failed or one was not taken.", func() float64 {
		if keep.backup().Trouble != "" {
			return 1
		}
		return 0
	})
}
