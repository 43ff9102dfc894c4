package notify

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/cron"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/notices"
	"github.com/agented/agented/internal/store"
)

// NextDigest returns when a valid digest is due after a time. zone is that of the server.
func NextDigest(d *notices.Digest, after time.Time, zone *time.Location) time.Time {
	if d.Zone != "" {
		if z, err := cron.LoadZone(d.Zone); err == nil {
			zone = z
		}
	}
	if zone == nil {
		zone = time.Local
	}
	s, err := cron.Parse(d.Cron)
	if err != nil {
		return time.Time{}
	}
	at, _ := s.Anchored(after).Next(after, zone)
	return at.UTC()
}

// digests stores the digests that are due: each once, also if the server was down or is killed.
func (n *Notifier) digests(ctx context.Context, now time.Time) error {
	var due []notices.Channel
	err := n.o.DB.View(ctx, "digests", func(q notices.Querier) (err error) {
		due, err = notices.DigestsDue(q, now)
		return err
	})
	if err != nil {
		return err
	}
	for i := range due {
		c := &due[i]
		if c.Digest == nil {
			continue
		}
		var s *notices.Summary
		err := n.o.DB.View(ctx, "digest", func(q notices.Querier) (err error) {
			s, err = notices.Summarize(q, c.DigestOf, now)
			return err
		})
		if err != nil {
			return err
		}
		if n.o.Waiting != nil {
			s.Waiting = append(s.Waiting, n.o.Waiting(ctx, now)...)
		}
		zone := n.o.Zone()
		if c.Digest.Zone != "" {
			if z, err := cron.LoadZone(c.Digest.Zone); err == nil {
				zone = z
			}
		}
		text := ""
		if c.Digest.Empty != "skip" || !empty(s) {
			text = n.o.Mask(digestText(s, c.DigestOf.In(zone), now.In(zone)))
		}
		err = n.o.DB.Update(ctx, "digest", func(tx store.Tx) error {
			return notices.AppendDigest(tx, c, text, now, NextDigest(c.Digest, now, n.o.Zone()))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// empty reports whether nothing ended and nothing waits.
func empty(s *notices.Summary) bool {
	return len(s.Counts) == 0 && len(s.Waiting) == 0 && s.Parked == 0
}

// digestText formats a digest. The times have the zone of the reader.
func digestText(s *notices.Summary, since, until time.Time) string {
	var b strings.Builder
	line := func(text string, args ...any) { fmt.Fprintf(&b, text+"\n", args...) }
	list := func(title string, items []string) {
		if len(items) > 0 {
			line("\n%s", title)
			for _, item := range items {
				line("- %s", item)
			}
		}
	}
	const stamp = "Mon 2 Jan 15:04"
	total, failed := 0, 0
	for state, n := range s.Counts {
		total += n
		if state == agented.StateFailed || state == agented.StateTimeout || state == agented.StateInterrupted {
			failed += n
		}
	}
	line("%s to %s", since.Format(stamp), until.Format(stamp+" MST"))
	if total == 0 {
		line("Nothing ran.")
	} else {
		line("%s: %d succeeded, %d failed, %d cancelled.", format.Plural(total, "execution", "executions"), s.Counts[agented.StateSuccess], failed, s.Counts[agented.StateCancelled])
	}
	cost := "Cost: " + agented.Dollars(s.CostUSD)
	if s.Unknown > 0 {
		cost += fmt.Sprintf(", and %s of unknown cost", format.Plural(s.Unknown, "attempt", "attempts"))
	}
	if total > 0 || s.CostUSD > 0 {
		line("%s.", cost)
	}
	list("Waiting for you:", oneLine(s.Waiting))
	var items []string
	for _, e := range s.Failed {
		items = append(items, nameOf(e)+" "+string(e.State)+": "+sentence(e.Reason))
	}
	if more := failed - len(s.Failed); more > 0 {
		items = append(items, fmt.Sprintf("and %s more", thousands(more)))
	}
	list("Failed:", items)
	items = nil
	for _, e := range s.Succeed {
		text := nameOf(e)
		if result := sentence(e.Result); result != "" {
			text += ": " + result
		}
		items = append(items, text)
	}
	list("Succeeded (latest of each trigger):", items)
	if s.Parked > 0 {
		line("\nParked: %s.", format.Plural(s.Parked, "execution", "executions"))
	}
	items = nil
	for _, r := range s.Next {
		items = append(items, clean(r.Trigger)+" at "+r.At.In(until.Location()).Format(stamp))
	}
	list("Due next:", items)
	return strings.TrimSpace(b.String())
}

func nameOf(e notices.Ended) string {
	if name := clean(e.Trigger); name != "" {
		return name
	}
	return string(e.ID)
}

func oneLine(list []string) (out []string) {
	for _, text := range list {
		out = append(out, format.Truncate(clean(text), 300))
	}
	return out
}

// sentence returns the first sentence of a text, at most 200 bytes.
func sentence(text string) string {
	text = strings.TrimLeft(strings.TrimSpace(text), "#*-> ")
	if i := strings.Index(text, "\n\n"); i > 0 {
		text = text[:i]
	}
	text = clean(text)
	if i := strings.Index(text, ". "); i > 20 {
		text = text[:i+1]
	}
	return format.Truncate(text, 200)
}
