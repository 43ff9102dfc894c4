package main

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/redact"
	reporter "github.com/agented/agented/internal/report"
	"github.com/agented/agented/internal/trace"
)

// observed makes the server's log, and what tells others of it where that is
// asked for: a reporter of errors behind the log, and a tracer, nil when off.
// Both are masked. stop sends what is left and returns when they have ended.
func observed(c *config.Config, out slog.Handler, masker *atomic.Pointer[redact.Masker]) (log *slog.Logger, t *trace.Tracer, stop func(), err error) {
	// What becomes of reports is logged past the reporter.
	quiet := slog.New(redact.Handler(out, masker))
	host := ""
	if c.SentryDSN.IsSet() {
		host, _ = os.Hostname()
	}
	r, err := reporter.New(reporter.Options{DSN: c.SentryDSN.Reveal(), Release: "agented@" + version, Server: host, Log: quiet})
	if err != nil {
		return nil, nil, nil, err
	}
	t, err = trace.New(trace.Options{
		Endpoint: c.OTLPEndpoint, Service: c.OTLPService, Version: version, Headers: c.OTLPHeaders.Reveal(), Log: quiet,
		Mask: func(s string) string { return masker.Load().MaskString(s) },
	})
	if err != nil {
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
