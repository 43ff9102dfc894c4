// Package metrics collects the server's Prometheus metrics: counters that other
// packages update, and values that are read at each scrape.
package metrics

import (
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
)

// Metrics collects the server's Prometheus metrics. Create it with New before the dispatcher, which updates some of them.
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

	publications *prometheus.CounterVec
}

// New returns metrics with their own registry, including those of the Go
// runtime and the process.
func New(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agented_http_requests_total", Help: "Requests answered, by route, method and status.",
		}, []string{"route", "method", "status"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "agented_http_request_duration_seconds", Help: "Duration of requests, except streams.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60},
		}, []string{"route", "method"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "agented_http_requests_in_flight", Help: "Requests in progress, including streams.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "agented_http_connections_refused_total", Help: "Requests answered with 503 because of the connection limit.",
		}),
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agented_logins_total", Help: "Login attempts, by outcome.",
		}, []string{"outcome"}),
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agented_deliveries_total", Help: "Inbound webhook calls, by verdict.",
		}, []string{"verdict"}),
		queueWait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "agented_queue_wait_seconds", Help: "Time from when an execution was due until it was claimed.",
			Buckets: []float64{.005, .02, .1, .5, 1, 5, 30, 60, 300, 1800, 3600, 4 * 3600, 24 * 3600},
		}),
		attempts: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "agented_attempt_duration_seconds", Help: "Duration of attempts, by backend and outcome.",
			Buckets: []float64{.1, .5, 1, 5, 15, 60, 300, 900, 1800, 3600, 2 * 3600, 6 * 3600, 24 * 3600},
		}, []string{"backend", "status"}),
		ticks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agented_schedule_ticks_total", Help: "Decided due times of schedules, by outcome.",
		}, []string{"outcome"}),
		tickLag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "agented_schedule_lag_seconds", Help: "Time from when a schedule was due until its execution was stored.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30, 60, 3600, 24 * 3600},
		}),
		logLines: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "agented_log_lines_total", Help: "Lines in the run logs of executions that ended since the server started.",
		}),
		logBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "agented_log_bytes_total", Help: "Bytes on disk of the run logs of executions that ended since the server started.",
		}),
	}
	m.makeBudgetMetrics()
	m.publications = newPublications()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "agented_build_info", Help: "Always 1; the labels give the version.",
		ConstLabels: prometheus.Labels{"version": version, "go_version": runtime.Version()},
	})
	build.Set(1)
	for _, outcome := range []string{"success", "refused", "limited"} {
		m.logins.WithLabelValues(outcome)
	}
	for _, outcome := range agented.TickOutcomes {
		m.ticks.WithLabelValues(string(outcome))
	}
	for _, v := range []agented.DeliveryVerdict{agented.VerdictAccepted, agented.VerdictIgnored, agented.VerdictDuplicate, agented.VerdictRejected} {
		m.deliveries.WithLabelValues(string(v))
	}
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), build,
		m.requests, m.latency, m.inFlight, m.refused, m.logins, m.deliveries, m.queueWait, m.attempts, m.ticks, m.tickLag, m.logLines, m.logBytes, m.publications,
	)
	return m
}

// Claimed records how long a claimed execution had been due. It implements
// dispatch.Observer.
func (m *Metrics) Claimed(wait time.Duration) { m.queueWait.Observe(max(wait, 0).Seconds()) }

// AttemptEnded records the end of an attempt. It implements dispatch.Observer.
func (m *Metrics) AttemptEnded(backend string, state agented.State, took time.Duration) {
	m.attempts.WithLabelValues(backend, string(state)).Observe(max(took, 0).Seconds())
}

// Ticked records the outcome of a schedule's due time, and how late it fired.
// It implements dispatch.Observer.
func (m *Metrics) Ticked(outcome agented.TickOutcome, lag time.Duration) {
	m.ticks.WithLabelValues(string(outcome)).Inc()
	if outcome == agented.TickFired || outcome == agented.TickLate {
		m.tickLag.Observe(max(lag, 0).Seconds())
	}
}

// Changed records the log size of an execution that ended. Call it from the
// store's OnChange; it reads the size of at most one file.
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

// RequestStarted counts a request as in progress until RequestEnded.
func (m *Metrics) RequestStarted() { m.inFlight.Inc() }

// RequestEnded records an answered request. The duration of streams is not
// recorded.
func (m *Metrics) RequestEnded(route, method string, status int, took time.Duration, stream bool) {
	m.inFlight.Dec()
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodPut, http.MethodDelete, http.MethodOptions:
	default:
		method = "other" // clients can invent methods
	}
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
	if !stream {
		m.latency.WithLabelValues(route, method).Observe(took.Seconds())
	}
}

// ConnectionRefused records a request that was rejected because of the
// connection limit.
func (m *Metrics) ConnectionRefused() { m.refused.Inc() }

// Login records a login attempt, with an outcome of package auth.
func (m *Metrics) Login(outcome string) { m.logins.WithLabelValues(outcome).Inc() }

// Delivery records an inbound webhook call.
func (m *Metrics) Delivery(v agented.DeliveryVerdict) { m.deliveries.WithLabelValues(string(v)).Inc() }

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}
