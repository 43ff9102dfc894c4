// Package serverlog writes the log of the server, and sends errors and traces from it.
package serverlog

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/redact"
	reporter "github.com/agented/agented/internal/report"
	"github.com/agented/agented/internal/trace"
)

// New returns the server's logger and, where configured, an error reporter that receives its
// records, and a tracer; the tracer is nil if tracing is off. Secrets are masked in all of them.
// stop flushes reporter and tracer and returns when both have ended.
func New(c *config.Config, version string, out slog.Handler, masker *atomic.Pointer[redact.Masker]) (log *slog.Logger, t *trace.Tracer, stop func(), err error) {
	// Problems of the reporter are logged without the reporter.
	quiet := slog.New(redact.Handler(out, masker))
	newReporter, newTracer := observers(c, version, quiet, masker)
	r, err := newReporter()
	if err != nil {
		return nil, nil, nil, err
	}
	if t, err = newTracer(); err != nil {
		return nil, nil, nil, err
	}
	log = slog.New(redact.Handler(r.Handler(out), masker))
	if r == nil && t == nil {
		return log, nil, func() {}, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { r.Run(ctx) })
	wg.Go(func() { t.Run(ctx) })
	return log, t, func() { cancel(); wg.Wait() }, nil
}

// observers returns the constructors of the reporter and the tracer for these settings.
func observers(c *config.Config, version string, quiet *slog.Logger, masker *atomic.Pointer[redact.Masker]) (func() (*reporter.Reporter, error), func() (*trace.Tracer, error)) {
	return func() (*reporter.Reporter, error) {
			host := ""
			if c.SentryDSN.IsSet() {
				host, _ = os.Hostname()
			}
			return reporter.New(reporter.Options{DSN: c.SentryDSN.Reveal(), Release: "agented@" + version, Server: host, Log: quiet})
		}, func() (*trace.Tracer, error) {
			return trace.New(trace.Options{
				Endpoint: c.OTLPEndpoint, TracesEndpoint: c.OTLPTraces, Protocol: cmp.Or(c.OTLPTracesProtocol, c.OTLPProtocol), Attributes: c.OTLPAttributes,
				Service: c.OTLPService, Version: version, Headers: c.OTLPHeaders.Reveal(), Log: quiet,
				Mask: func(s string) string { return masker.Load().MaskString(s) },
			})
		}
}

// Check returns the problems that keep the reporter and the tracer of these settings from starting.
func Check(c *config.Config) (bad []agented.Field) {
	reporter, tracer := observers(c, "", slog.New(slog.DiscardHandler), new(atomic.Pointer[redact.Masker]))
	if _, err := reporter(); err != nil {
		bad = append(bad, agented.Field{Path: "SENTRY_DSN", Text: agented.Message(err)})
	}
	if _, err := tracer(); err != nil {
		bad = append(bad, agented.Field{Path: "OTEL_EXPORTER_OTLP_ENDPOINT", Text: agented.Message(err)})
	}
	return bad
}
