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
		"usagelimit", "quota_exhausted", "terminalquotaerror",
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

// limit is what the failure says about a limit; nothing when it is the agent's.
func (f failure) limit(class agented.Class, until time.Time, window string) agented.Limit {
	if class == agented.ClassAgentFailure {
		return agented.Limit{}
	}
	evidence := inner(f.message)
	if evidence == "" {
		evidence = f.kind
	}
	return agented.Limit{Class: class, Until: until, Window: window, Evidence: clip(oneLine(evidence), agented.MaxEvidence)}
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
