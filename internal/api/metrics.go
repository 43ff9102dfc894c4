package api

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
)

// Metrics is what the server counts, in the names that Prometheus sees. Make it
// with NewMetrics before the dispatcher, which feeds part of it.
type Metrics struct {
	registry *prometheus.Registry

	requests *prometheus.CounterVec
	latency  *prometheus.HistogramVec
	inFlight prometheus.Gauge
	refused  prometheus.Counter
	logins   *prometheus.CounterVec

	deliveries *prometheus.CounterVec

	queueWait prometheus.Histogram
	attempts  *prometheus.HistogramVec
	ticks     *prometheus.CounterVec
	tickLag   prometheus.Histogram
	logLines  prometheus.Counter
	logBytes  prometheus.Counter

	pauses  *prometheus.CounterVec
	budgets *prometheus.CounterVec
}

// NewMetrics returns a registry of its own with the program's and the
// process's figures in it.
func NewMetrics(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agented_http_requests_total", Help: "Requests answered, by route, method and status.",
		}, []string{"route", "method", "status"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "agented_http_request_duration_seconds", Help: "Time to answer a request; streams are not in it.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60},
		}, []string{"route", "method"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "agented_http_requests_in_flight", Help: "Requests being answered, streams among them.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "agented_http_connections_refused_total", Help: "Requests answered with 503 because there were too many connections.",
		}),
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agented_logins_total", Help: "Attempts to log in, by outcome.",
		}, []string{"outcome"}),
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agented_deliveries_total", Help: "Calls from outside, by verdict.",
		}, []string{"verdict"}),
		queueWait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "agented_queue_wait_seconds", Help: "Time from when an execution was due to when it was claimed.",
			Buckets: []float64{.005, .02, .1, .5, 1, 5, 30, 60, 300, 1800, 3600, 4 * 3600, 24 * 3600},
		}),
		attempts: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "agented_attempt_duration_seconds", Help: "Time from an attempt's start to its end, by backend and outcome.",
			Buckets: []float64{.1, .5, 1, 5, 15, 60, 300, 900, 1800, 3600, 2 * 3600, 6 * 3600, 24 * 3600},
		}, []string{"backend", "status"}),
		ticks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agented_schedule_ticks_total", Help: "Due times of schedules that were decided, by outcome.",
		}, []string{"outcome"}),
		tickLag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "agented_schedule_lag_seconds", Help: "Time from when a schedule was to fire to when its execution was stored.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30, 60, 3600, 24 * 3600},
		}),
		logLines: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "agented_log_lines_total", Help: "Lines in the run logs of executions that ended since the start.",
		}),
		logBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "agented_log_bytes_total", Help: "Bytes on disk of the run logs of executions that ended since the start.",
		}),
	}
	m.makeMoney()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "agented_build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "go_version": runtime.Version()},
	})
	build.Set(1)
	for _, outcome := range []string{"success", "refused", "limited"} {
		m.logins.WithLabelValues(outcome)
	}
	for _, outcome := range agented.TickOutcomes {
		m.ticks.WithLabelValues(string(outcome))
	}
	for _, v := range []agented.Verdict{agented.VerdictAccepted, agented.VerdictIgnored, agented.VerdictDuplicate, agented.VerdictRejected} {
		m.deliveries.WithLabelValues(string(v))
	}
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), build,
		m.requests, m.latency, m.inFlight, m.refused, m.logins, m.deliveries, m.queueWait, m.attempts, m.ticks, m.tickLag, m.logLines, m.logBytes,
	)
	return m
}

// Claimed notes how long a claimed execution had been due. It fits
// dispatch.Observer.
func (m *Metrics) Claimed(wait time.Duration) { m.queueWait.Observe(max(wait, 0).Seconds()) }

// AttemptEnded notes the end of an attempt. It fits dispatch.Observer.
func (m *Metrics) AttemptEnded(backend string, state agented.State, took time.Duration) {
	m.attempts.WithLabelValues(backend, string(state)).Observe(max(took, 0).Seconds())
}

// Ticked notes what was done about a due time of a schedule, and how long after
// its time if it fired. It fits dispatch.Observer.
func (m *Metrics) Ticked(outcome agented.TickOutcome, lag time.Duration) {
	m.ticks.WithLabelValues(string(outcome)).Inc()
	if outcome == agented.TickFired || outcome == agented.TickLate {
		m.tickLag.Observe(max(lag, 0).Seconds())
	}
}

// Changed counts the log of an execution that ended. Call it from the store's
// OnChange; it looks at one file's size at most.
func (m *Metrics) Changed(e agented.ExecutionEvent, layout agented.Layout) {
	if e.Execution == nil || !e.Execution.State.Final() || e.Execution.AttemptNo == 0 {
		return
	}
	m.logLines.Add(float64(e.Execution.LastSeq))
	for _, name := range []string{"log", "log.zst"} {
		if info, err := os.Stat(filepath.Join(layout.Execution(e.Execution.ID), name)); err == nil {
			m.logBytes.Add(float64(info.Size()))
			return
		}
	}
}

// request notes an answered request.
func (m *Metrics) request(route, method string, status int, took time.Duration, stream bool) {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodPut, http.MethodDelete, http.MethodOptions:
	default:
		method = "other" // anybody may invent methods
	}
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
	if !stream {
		m.latency.WithLabelValues(route, method).Observe(took.Seconds())
	}
}

// watch adds what is looked up when somebody asks.
func (m *Metrics) watch(s *Server) {
	gauge := func(name, help string, f func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
	}
	m.watchKeep(s)
	m.watchMoney(s)
	gauge("agented_http_connections", "Open connections.", func() float64 { return float64(s.Connections()) })
	gauge("agented_attempts_running", "Executions that this node works on.", func() float64 { return float64(s.o.Dispatch.Running()) })
	gauge("agented_attempts_to_resume", "Executions that a previous server left running and with which this one does not go on yet.", func() float64 { return float64(s.o.Dispatch.ToResume()) })
	gauge("agented_sse_readers", "Event streams that somebody reads.", func() float64 { return float64(s.o.Hub.Readers()) })
	gauge("agented_uptime_seconds", "Time since the server started.", func() float64 { return s.now().Sub(s.started).Seconds() })
	m.registry.MustRegister(&stateCollector{
		s:        s,
		states:   prometheus.NewDesc("agented_executions", "Executions in the database, by status.", []string{"status"}, nil),
		depth:    prometheus.NewDesc("agented_queue_depth", "Executions that are due and wait for a slot.", nil, nil),
		oldest:   prometheus.NewDesc("agented_queue_oldest_wait_seconds", "How long the oldest of them has been due; 0 when none waits.", nil, nil),
		failures: prometheus.NewDesc("agented_store_up", "1 when the database answered this scrape.", nil, nil),
	})
}

// stateCollector asks the database at each scrape.
type stateCollector struct {
	s                               *Server
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
	counts, err := c.s.o.DB.Counts(ctx)
	if err == nil {
		for _, state := range agented.States {
			out <- prometheus.MustNewConstMetric(c.states, prometheus.GaugeValue, float64(counts[state]), string(state))
		}
		var q store.QueueStats
		if q, err = c.s.o.DB.Queue(ctx, c.s.now()); err == nil {
			out <- prometheus.MustNewConstMetric(c.depth, prometheus.GaugeValue, float64(q.Due))
			out <- prometheus.MustNewConstMetric(c.oldest, prometheus.GaugeValue, q.OldestDue.Seconds())
		}
	}
	if err != nil {
		up = 0
		c.s.o.Log.Warn("metrics", "err", err)
	}
	out <- prometheus.MustNewConstMetric(c.failures, prometheus.GaugeValue, up)
}

// metrics answers GET /metrics.
func (s *Server) metrics() http.HandlerFunc {
	h := promhttp.HandlerFor(s.m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
	return h.ServeHTTP
}
