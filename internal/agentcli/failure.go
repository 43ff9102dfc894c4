package agentcli

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
)

// Failure is an error that a CLI reported.
type Failure struct {
	Status  int    // HTTP status of the model's API; 0 if unknown
	Kind    string // the CLI's error type, for example "rate_limit"
	Message string // the CLI's message
	Ours    string // description in Agented's words, instead of Message
	Google  bool   // from Google's API, which uses words of its own
	Local   bool   // concerns this machine or the configuration, whatever its words
	// Plain is set if the message was not in an event. It matches the messages that are errors of the
	// model's API.
	Plain *regexp.Regexp
	// Own is true for an exception of the CLI itself, unless it has the form of an API error.
	Own bool
	// Answer is true if the error of the last message belongs to it.
	Answer bool
}

// plain reports whether the message was printed as plain text that is no error of the model's API.
func (f Failure) plain() bool { return f.Plain != nil && !f.Plain.MatchString(Clip(f.Message, 4<<10)) }

// nothing matches no text.
var nothing = regexp.MustCompile(`[^\x00-\x{10FFFF}]`)

// apiForms returns what matches the CLI's errors of the model's API outside of its protocol.
func (r *Rules) apiForms() *regexp.Regexp {
	if r.APIErrors == nil {
		return nothing
	}
	return r.APIErrors
}

// apiForm reports whether a line is an error of the model's API in the format of the CLI.
func (r *Rules) apiForm(line string) bool { return r.apiForms().MatchString(Clip(line, 4<<10)) }

// sentenceOf describes a class in a sentence.
func sentenceOf(l agented.Limit, class agented.Class) string {
	switch class {
	case agented.ClassAccountLimit:
		switch {
		case l.Unknown:
			return "reported an apparent limit of its account"
		case l.Window == "five_hour":
			return "reached the five-hour limit of its account"
		case l.Window != "":
			return "reached the " + l.Window + " limit of its account"
		}
		return "reached a limit of its account"
	case agented.ClassThrottle:
		return "sent too many requests and must slow down"
	case agented.ClassBilling:
		return "has no credit left on its account"
	case agented.ClassAuth:
		return "could not log in: its credentials were rejected or are missing"
	case agented.ClassOverload:
		return "could not get an answer from the model's API, which is overloaded or failing"
	case agented.ClassNetwork:
		return "could not get an answer from the model's API: the network or the connection failed"
	}
	return "reported an error"
}

// fail records the failure in the reading, with the time of the reset if it is known.
func (r *reading) fail(f Failure) {
	r.limit = r.limitOf(f)
	r.class = r.limit.Class
	r.outcome = r.class.Outcome()
	r.retryAfter = r.limit.Until
	r.gone = sessionGone(f.Message)
	if r.class == agented.ClassAgentFailure {
		r.limit = agented.Limit{} // there was none
	}
	if f.Ours != "" {
		r.reason = r.rules.Subject + " " + f.Ours
		if f.Kind != "" {
			r.reason += " (" + OneLine(f.Kind) + ")"
		}
		return
	}
	f.Message = inner(f.Message)
	r.reason = quoting(r.rules.Subject+" "+sentenceOf(r.limit, r.class), f.Message)
	if r.outcome == agented.OutcomeRateLimited && !r.retryAfter.IsZero() {
		r.reason += "; the limit resets at " + r.retryAfter.UTC().Format("2006-01-02 15:04:05") + " UTC"
	}
}

// failed records a failure of the agent or its task.
func (r *reading) failed() { r.class, r.outcome = agented.ClassAgentFailure, agented.OutcomeFailed }

// finish sets the result of a process that ended by itself. bad is the error that the CLI
// reported, or nil; worked is true if it called tools; complaint is an error outside of its
// protocol.
func (r *reading) finish(exit agented.Exit, bad *Failure, worked bool, complaint string) agented.Result {
	switch {
	case bad != nil:
		r.good = false
		r.fail(*bad)
		if exit.Signal != "" {
			r.reason += "; it was " + howItEnded(exit)
		}
	case r.good && cleanExit(exit):
		r.outcome, r.retryAfter = agented.OutcomeSuccess, time.Time{}
		if strings.TrimSpace(r.text) == "" {
			r.reason = r.rules.Subject + " ended without a final answer"
			if !worked {
				r.failed()
				r.reason = r.rules.Subject + " reported success, but gave no answer and used no tool"
			}
		}
	case r.good:
		r.failed()
		r.reason = r.rules.Subject + " returned a result, but then " + howItEnded(exit)
	case cleanExit(exit):
		// After SIGTERM some CLIs exit with code 0 in the middle of a turn.
		r.failed()
		r.reason = r.rules.Subject + " exited with code 0, but without its final result"
		if q := quote(complaint); q != "" {
			r.reason += "; its last output: " + q
		}
	default:
		r.fail(Failure{Message: complaint, Plain: r.rules.apiForms(), Local: r.local})
		if r.outcome == agented.OutcomeFailed {
			r.reason = quoting(fmt.Sprintf("%s %s before it gave a result", r.rules.Subject, howItEnded(exit)), complaint)
		}
	}
	return r.result()
}

// complaint selects the line that explains a failure best from the lines outside of a CLI's
// protocol: a crash; otherwise the last line that is marked as an error or is an error of the
// model's API; otherwise the first line, because a list of options often follows it.
func (s *said) complaint(rules *Rules) string {
	quiet := func(line string) bool {
		return slices.ContainsFunc(rules.Noise, func(n string) bool { return strings.HasPrefix(line, n) })
	}
	for _, pick := range []func(string) bool{
		func(line string) bool { return crash.MatchString(line) },
		func(line string) bool {
			return strings.HasPrefix(strings.ToLower(line), "error") || rules.apiForm(line)
		},
	} {
		if found := s.find(func(line string) bool { return !quiet(line) && pick(line) }); found != "" {
			return found
		}
	}
	for _, line := range slices.Concat(s.first, s.last) {
		if !quiet(line) {
			return line
		}
	}
	return ""
}

// inner returns the message inside a message that repeats an API's JSON answer.
func inner(message string) string {
	at := strings.IndexByte(message, '{')
	if at < 0 {
		return message
	}
	var answer struct {
		Message string `json:"message"`
		Error   struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := json.NewDecoder(strings.NewReader(message[at:])).Decode(&answer); err != nil {
		return message
	}
	if answer.Error.Message != "" {
		return answer.Error.Message
	}
	if answer.Message != "" {
		return answer.Message
	}
	return message
}
