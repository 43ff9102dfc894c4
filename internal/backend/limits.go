package backend

import (
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
)

// Words of a CLI's error messages that tell what failed, in small letters. They
// are looked for in messages that a CLI gave as an error, never in what an
// agent wrote. The first list that has one wins, in the order of class.
var (
	billingWords = []string{
		"credit balance", "billing_error", "insufficient_quota", "out of credit", "payment required", "insufficient credit", "insufficient balance",
		"insufficient funds", "no payment method", "add a payment method", "billing hard limit", "usage_not_included", "creditserror",
		"to use codex with your", "enable billing", "billing is not enabled", "billing account",
	}
	accountWords = []string{
		"usage limit", "usage_limit", "session limit", "weekly limit", "5-hour limit", "five_hour", "seven_day", "hour limit", "daily limit", "monthly limit",
		"hit your limit", "limit reached", // but not "rate limit reached"
		"daily quota", "exhausted your", "per day", "perday", "out of extra usage", "quota will reset", "usage cap",
		"usagelimit", "quota_exhausted", "spend limit", "spending limit", "quota limit", "subscription quota", "usage exceeded", "terminalquotaerror",
	}
	overloadWords = []string{
		"overloaded", "at capacity", "high demand", "no capacity", "capacity available", "capacity_exhausted", "temporarily unavailable", "service unavailable",
		"slow_down", "model is busy",
	}
	throttleWords = []string{
		"rate limit", "rate_limit", "rate-limit", "ratelimit", "too many requests", "resource_exhausted", "resource exhausted", "resource has been exhausted",
		"quota", "per minute", "throttl",
	}
	authWords = []string{
		"authentication", "unauthorized", "unauthenticated", "not logged in", "please run /login", "invalid api key", "incorrect api key", "invalid x-api-key",
		"api key not valid", "api_key_invalid", "api key is missing", "must specify the gemini_api_key", "set an auth method", "invalid auth method", "missing environment variable",
		"oauth token", "token has expired", "token could not be refreshed", "refresh token", "log out and sign in", "no credentials", "missing bearer", "api key expired",
		"login expired", "login has expired", "logged out",
	}
	providerWords = []string{"internal server error", "server_error", "server had an error", "internal error", "bad gateway", "api_error"}
	networkWords  = []string{
		"stream disconnected", "stream closed", "connection", "network", "terminated", "timed out", "timeout", "fetch failed",
		"socket", "unable to connect", "premature close", "transient", "dns error", "error sending request",
	}
	brokenWords = []string{"econnrefused", "econnreset", "enotfound", "eai_again", "getaddrinfo", "etimedout", "socket hang up", "connection dropped", "connection error"}
)

// class says whose doing the failure was.
func (f failure) class() agented.Class {
	status := f.status
	if status == 0 {
		status = statusIn(f.message)
	}
	text := strings.ReplaceAll(strings.ToLower(f.kind+" "+clip(f.message, 4<<10)), "rate limit reached", "rate limit")
	has := func(words []string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
	}
	// Google says the same of a daily allowance, which comes back by itself.
	google := f.google || strings.Contains(text, "retry in ") || strings.Contains(text, "googleapis") || strings.Contains(text, "quota exceeded for metric")
	switch {
	case status == 402, has(billingWords), !google && strings.Contains(text, "billing details"):
		return agented.ClassBilling
	case has(accountWords):
		return agented.ClassAccountLimit
	case has(overloadWords):
		return agented.ClassOverload
	case status == 429, has(throttleWords):
		return agented.ClassThrottle
	case status == 401, status == 403, has(authWords):
		return agented.ClassAuth
	case status == 408:
		return agented.ClassNetwork
	case status >= 500:
		return agented.ClassOverload
	case status >= 400:
		return agented.ClassAgentFailure
	case has(providerWords) && !has(brokenWords):
		return agented.ClassOverload
	case has(networkWords), has(brokenWords):
		return agented.ClassNetwork
	}
	return agented.ClassAgentFailure
}

// limitOf is what the failure says about a limit. Its class is the failure's,
// whatever that is; a time that a field of the output gave goes before one that
// is read from a sentence.
func (r *reading) limitOf(f failure) agented.Limit {
	l := agented.Limit{Class: f.class(), Until: r.retryAfter, Window: r.window}
	sentence := inner(f.message)
	if l.Evidence = oneLine(sentence); l.Evidence == "" {
		l.Evidence = oneLine(f.kind)
	}
	l.Evidence = clip(l.Evidence, agented.MaxEvidence)
	text := strings.ToLower(clip(f.kind+" "+f.message, 4<<10))
	if l.Class == agented.ClassAgentFailure && f.ours == "" && likeALimit(f, text) {
		l.Class, l.Unknown = agented.ClassAccountLimit, true
	}
	switch l.Class {
	case agented.ClassAccountLimit, agented.ClassThrottle, agented.ClassOverload, agented.ClassBilling:
	default:
		return agented.Limit{Class: l.Class, Evidence: l.Evidence}
	}
	if l.Until.IsZero() {
		if l.Until = When(sentence, r.now, r.now.Location()); l.Until.IsZero() {
			l.Until = When(f.message, r.now, r.now.Location())
		}
	}
	if l.Window == "" && l.Class == agented.ClassAccountLimit {
		l.Window = windowIn(text)
	}
	r.weigh(&l, f, text)
	return l
}

// What a time to come back says about a limit.
const (
	longThrottle = 10 * time.Minute // a rate recovers sooner: this is an allowance
	shortQuota   = 2 * time.Minute  // an allowance does not come back so soon: this is a rate
	fiveHours    = 6 * time.Hour    // no five-hour window ends later than this
)

// weigh corrects the class and the time of a limit by each other.
func (r *reading) weigh(l *agented.Limit, f failure, text string) {
	wait := l.Until.Sub(r.now)
	switch {
	case l.Class == agented.ClassThrottle && !l.Until.IsZero() && wait > longThrottle:
		l.Class = agented.ClassAccountLimit
	case l.Class == agented.ClassAccountLimit && !l.Until.IsZero() && wait <= shortQuota && l.Window == "" && strings.Contains(text, "exhausted your capacity"):
		l.Class = agented.ClassThrottle
	case l.Class == agented.ClassAccountLimit && l.Window == "five_hour" && wait > fiveHours:
		l.Until = time.Time{} // it has passed, so the next time that clocks show it is tomorrow
	case l.Class == agented.ClassAccountLimit && l.Window == "daily" && l.Until.IsZero() && (f.google || strings.Contains(text, "google")):
		l.Until = ahead(midnight(r.now, pacific()), r.now)
	}
}

// windowIn is the window of an account's limit that a message names.
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

// windowOf is the window that claude's word for it means.
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

// likeALimit reports whether a message that no rule knows speaks of a limit: it
// needs a word for an allowance and one for coming back, or a time to do so. A
// limit on the length of a text is none.
func likeALimit(f failure, text string) bool {
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
	}
	if f.status >= 400 && f.status != 403 || has("context", "too long", "max_tokens", "maximum token", "output token", "length limit", "turns", "size limit", "file limit") {
		return false
	}
	allowance := has("limit", "allowance", "quota", "usage", "exhausted", "exceeded", "used up", "ran out", "out of messages", "too many")
	back := has("reset", "try again", "retry", "upgrade", "wait until", "available again", "come back", "renew", "next billing", "add credits", "later")
	return allowance && back
}

// goneWords are what the CLIs say of a session to resume that they do not have.
var goneWords = []string{
	"no conversation found with session id", "no rollout found for thread", "error resuming session", "session not found", "no previous sessions found",
	"invalid session identifier",
}

// sessionGone reports whether a CLI's complaint is about the session.
func sessionGone(message string) bool {
	text := strings.ToLower(clip(message, 4<<10))
	return slices.ContainsFunc(goneWords, func(w string) bool { return strings.Contains(text, w) })
}
