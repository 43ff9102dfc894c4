package agentcli

import (
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
)

// limitOf returns the limit that the failure describes. Its class is the failure's. A time in a
// field of the output takes precedence over one in a sentence.
func (r *reading) limitOf(f Failure) agented.Limit {
	l := agented.Limit{Class: f.Class(), Until: r.retryAfter, Window: r.window}
	sentence := inner(f.Message)
	if l.Evidence = OneLine(sentence); l.Evidence == "" {
		l.Evidence = OneLine(f.Kind)
	}
	l.Evidence = Clip(l.Evidence, agented.MaxEvidence)
	text := strings.ToLower(Clip(f.Kind+" "+f.Message, 4<<10))
	if l.Class == agented.ClassAgentFailure && f.Ours == "" && !f.Local && !f.plain() && likeALimit(f, text) {
		l.Class, l.Unknown = agented.ClassAccountLimit, true
	}
	switch l.Class {
	case agented.ClassAccountLimit, agented.ClassThrottle, agented.ClassOverload, agented.ClassBilling:
	default:
		return agented.Limit{Class: l.Class, Evidence: l.Evidence}
	}
	if l.Until.IsZero() {
		if l.Until = When(sentence, r.now, r.now.Location()); l.Until.IsZero() {
			l.Until = When(f.Message, r.now, r.now.Location())
		}
	}
	if l.Window == "" && l.Class == agented.ClassAccountLimit {
		l.Window = windowIn(text)
	}
	r.weigh(&l, f, text)
	return l
}

// Thresholds that relate the reset time to the kind of limit.
const (
	longThrottle = 10 * time.Minute // a rate limit resets sooner: this is a quota
	shortQuota   = 2 * time.Minute  // a quota does not reset so soon: this is a rate limit
	fiveHours    = 6 * time.Hour    // no five-hour window ends later than this
)

// weigh corrects the class of a limit by its reset time and the reverse.
func (r *reading) weigh(l *agented.Limit, f Failure, text string) {
	wait := l.Until.Sub(r.now)
	switch {
	case l.Class == agented.ClassThrottle && !l.Until.IsZero() && wait > longThrottle:
		l.Class = agented.ClassAccountLimit
	case l.Class == agented.ClassAccountLimit && !l.Until.IsZero() && wait <= shortQuota && l.Window == "" && strings.Contains(text, "exhausted your capacity"):
		l.Class = agented.ClassThrottle
	case l.Class == agented.ClassAccountLimit && l.Window == "five_hour" && wait > fiveHours:
		l.Until = time.Time{} // it has passed, so the clock time is tomorrow's
	case l.Class == agented.ClassAccountLimit && l.Window == "daily" && l.Until.IsZero() && (f.Google || strings.Contains(text, "google")):
		l.Until = ahead(midnight(r.now, pacific()), r.now)
	}
}

// windowIn returns the limit window that a message names.
func windowIn(text string) string {
	for _, w := range []struct {
		name  string
		words []string
	}{
		{"weekly", []string{"weekly", "seven_day", "7-day", "per week", "this week"}},
		{"five_hour", []string{"five_hour", "5-hour", "5 hour", "five-hour", "session limit"}},
		{"daily", []string{"daily", "per day", "perday", "(tpd)", "(rpd)"}},
		{"monthly", []string{"monthly", "per month"}},
	} {
		if slices.ContainsFunc(w.words, func(s string) bool { return strings.Contains(text, s) }) {
			return w.name
		}
	}
	return ""
}

// windowOf returns the limit window for a CLI's name of it.
func windowOf(kind string) string {
	switch kind {
	case "five_hour":
		return kind
	case "overage":
		return "monthly"
	}
	if strings.HasPrefix(kind, "seven_day") {
		return "weekly"
	}
	return ""
}

// likeALimit reports whether a message that no rule matches describes a limit: it needs a word
// for a quota and one for a reset, or a reset time. Limits of text length are excluded.
func likeALimit(f Failure, text string) bool {
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
	}
	if f.Status >= 400 && f.Status != 403 || contextWords.MatchString(f.Message) || localWords.MatchString(f.Message) || has("context", "too long", "max_tokens", "maximum token", "output token", "length limit", "turns", "size limit", "file limit") {
		return false
	}
	allowance := has("limit", "allowance", "quota", "usage", "exhausted", "exceeded", "used up", "ran out", "out of messages", "too many")
	back := has("reset", "try again", "retry", "upgrade", "wait until", "available again", "come back", "renew", "next billing", "add credits", "later")
	return allowance && back
}

// goneWords are the CLIs' messages for a session that does not exist.
var goneWords = []string{
	"no conversation found with session id", "no rollout found for thread", "error resuming session", "session not found", "no previous sessions found",
	"invalid session identifier",
}

// sessionGone reports whether a CLI's error is about a missing session.
func sessionGone(message string) bool {
	text := strings.ToLower(Clip(message, 4<<10))
	return slices.ContainsFunc(goneWords, func(w string) bool { return strings.Contains(text, w) })
}
