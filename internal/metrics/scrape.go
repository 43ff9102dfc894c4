package metrics

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/backup"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/store"
)

// Sources provides the values that are read at each scrape. All fields are
// required.
type Sources struct {
	DB             *store.DB
	Log            *slog.Logger
	Now            func() time.Time
	Started        time.Time // start of the server
	Connections    func() int64
	Running        func() int   // executions on this node
	ToResume       func() int   // executions of a previous server that are not adopted yet
	Readers        func() int64 // open event streams
	Disk           func() dispatch.Disk
	Backup         func() backup.Status
	FailedRemovals func() int64 // folders that retention could not remove
	Pulls          func() []agented.PullStatus
}

// Watch adds the metrics that are read at each scrape. Call it once.
func (m *Metrics) Watch(s Sources) {
	gauge := func(name, help string, f func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
	}
	m.watchMaintenance(s)
	m.watchBudgets(s)
	m.registry.MustRegister(newOpenPublications(s))
	m.watchPulls(s)
	gauge("agented_http_connections", "Open connections.", func() float64 { return float64(s.Connections()) })
	gauge("agented_attempts_running", "Executions running on this node.", func() float64 { return float64(s.Running()) })
	gauge("agented_attempts_to_resume", "Executions left running by a previous server that this one has not adopted yet.", func() float64 { return float64(s.ToResume()) })
	gauge("agented_sse_readers", "Open event streams.", func() float64 { return float64(s.Readers()) })
	gauge("agented_uptime_seconds", "Time since the server started.", func() float64 { return s.Now().Sub(s.Started).Seconds() })
	m.registry.MustRegister(&stateCollector{
		s:        s,
		states:   prometheus.NewDesc("agented_executions", "Executions in the database, by status.", []string{"status"}, nil),
		depth:    prometheus.NewDesc("agented_queue_depth", "Executions that are due and wait for a slot.", nil, nil),
		oldest:   prometheus.NewDesc("agented_queue_oldest_wait_seconds", "How long the oldest waiting execution has been due; 0 if none waits.", nil, nil),
		failures: prometheus.NewDesc("agented_store_up", "1 if the database answered this scrape.", nil, nil),
	})
}

// stateCollector queries the database at each scrape.
type stateCollector struct {
	s                               Sources
	states, depth, oldest, failures *prometheus.Desc
}

func (c *stateCollector) Describe(out chan<- *prometheus.Desc) {
	out <- c.states
	out <- c.depth
	out <- c.oldest
	out <- c.failures
}

func (c *stateCollector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	up := 1.0
	counts, err := c.s.DB.Counts(ctx)
	if err == nil {
		for _, state := range agented.States {
			out <- prometheus.MustNewConstMetric(c.states, prometheus.GaugeValue, float64(counts[state]), string(state))
		}
		var q store.QueueStats
		if q, err = c.s.DB.Queue(ctx, c.s.Now()); err == nil {
			out <- prometheus.MustNewConstMetric(c.depth, prometheus.GaugeValue, float64(q.Due))
			out <- prometheus.MustNewConstMetric(c.oldest, prometheus.GaugeValue, q.OldestDue.Seconds())
		}
	}
	if err != nil {
		up = 0
		c.s.Log.Warn("metrics", "err", err)
	}
	out <- prometheus.MustNewConstMetric(c.failures, prometheus.GaugeValue, up)
}

// watchMaintenance adds the metrics of disk, retention and backups.
func (m *Metrics) watchMaintenance(s Sources) {
	gauge := func(name, help string, f func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
	}
	gauge("agented_disk_free_bytes", "Free bytes on the disk of the data folder.", func() float64 { return float64(s.Disk().Free) })
	gauge("agented_disk_low", "1 while new executions wait for disk space.", func() float64 {
		if s.Disk().Low {
			return 1
		}
		return 0
	})
	gauge("agented_execution_bytes", "Size of the folders of ended executions in bytes.", func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		n, err := s.DB.ExecutionBytes(ctx)
		if err != nil {
			return 0
		}
		return float64(n)
	})
	gauge("agented_retention_failed_removals", "Folders that retention could not remove at its last run.", func() float64 { return float64(s.FailedRemovals()) })
	gauge("agented_database_bytes", "Size of the database and its write-ahead log in bytes.", func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		n, err := s.DB.Bytes(ctx)
		if err != nil {
			return 0
		}
		return float64(n)
	})
	gauge("agented_backup_last_success_timestamp_seconds", "Time of the last verified scheduled backup; 0 if there is none.", func() float64 {
		if at := s.Backup().LastSuccess; !at.IsZero() {
			return float64(at.Unix())
		}
		return 0
	})
	gauge("agented_backup_last_bytes", "Size of the last scheduled backup in bytes.", func() float64 { return float64(s.Backup().LastBytes) })
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "agented_backup_failures_total", Help: "Scheduled backups that failed since the server started.",
	}, func() float64 { return float64(s.Backup().Failures) }))
	gauge("agented_backup_trouble", "1 if the last scheduled backup failed or was missed.", func() float64 {
		if s.Backup().Problem != "" {
			return 1
		}
		return 0
	})
}
