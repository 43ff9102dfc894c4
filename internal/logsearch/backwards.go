package logsearch

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/runlog"
)

// Lines that are searched together on the way back. Windows without a match grow.
const (
	firstWindow = 4096
	lastWindow  = 1 << 18
)

// Backwards searches the lines before one, towards the start of the log. The hits of the
// result are the last ones, in the order of the log; nextBefore is the first line that was
// searched, and Done says that the start of the log was reached.
func Backwards(ctx context.Context, log *runlog.Reader, query string, o Options, before agented.Seq) (found *Result, nextBefore agented.Seq, err error) {
	found = &Result{Hits: []Hit{}}
	limit := o.Limit
	for window := agented.Seq(firstWindow); before > 1; {
		o.After, o.Stop, o.Limit = max(0, before-1-window), before, math.MaxInt
		if err := log.SeekAfter(o.After); err != nil {
			return nil, 0, err
		}
		search, err := New(query, o)
		if err != nil {
			return nil, 0, err
		}
		part, err := search.Run(ctx, log)
		if err != nil {
			return nil, 0, err
		}
		if !part.Done { // out of time: this window is searched again
			break
		}
		found.Hits, before = slices.Concat(part.Hits, found.Hits), o.After+1
		if n := len(found.Hits) - limit; n > 0 {
			found.Hits = found.Hits[n:]
			before = found.Hits[0].Seq
		}
		if len(found.Hits) >= limit || ctx.Err() != nil || !time.Now().Before(o.Until) {
			break
		}
		if len(part.Hits) == 0 && window < lastWindow {
			window *= 4
		}
	}
	found.Done = before <= 1
	return found, before, nil
}
