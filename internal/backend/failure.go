package backend

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented"
)

// failure is an error that a CLI reported, before it is put into words.
type failure struct {
	status  int    // HTTP status of the model's API; 0 is unknown
	kind    string // the CLI's own word for it: "rate_limit"
	message string // the CLI's own sentence
	ours    string // instead of it: what the CLI did, in our words
	google  bool   // Google's API said it, which has words of its own
}

// sentenceOf says what a class means for people.
func sentenceOf(l agented.Limit, class agented.Class) string {
	switch class {
	case agented.ClassAccountLimit:
		switch {
		case l.Unknown:
			return "reported what looks like a limit of its account"
		case l.Window == "five_hour":
			return "reached the five-hour limit of its account"
		case l.Window != "":
			return "reached the " + l.Window + " limit of its account"
		}
		return "reached a limit of its account"
	case agented.ClassThrottle:
		return "was told to slow down: too many requests"
	case agented.ClassBilling:
		return "found no credit left on its account"
	case agented.ClassAuth:
		return "could not log in: its credentials were refused or are missing"
	case agented.ClassOverload:
		return "could not get an answer from the model's API, which is overloaded or failing"
	case agented.ClassNetwork:
		return "could not get an answer from the model's API: the network or the connection failed"
	}
	return "reported an error"
}

// outcome says whose fault the failure is, in the words of an attempt.
func (f failure) outcome() agented.Outcome { return f.class().Outcome() }

// fail puts the failure into the reading, with the time to come back if one is
// known.
func (r *reading) fail(f failure) {
	r.limit = r.limitOf(f)
	r.class = r.limit.Class
	r.outcome = r.class.Outcome()
	r.retryAfter = r.limit.Until
	r.gone = sessionGone(f.message)
	if r.class == agented.ClassAgentFailure {
		r.limit = agented.Limit{} // there was none
	}
	if f.ours != "" {
		r.reason = r.program + " " + f.ours
		if f.kind != "" {
			r.reason += " (" + oneLine(f.kind) + ")"
		}
		return
	}
	f.message = inner(f.message)
	r.reason = saying(r.program+" "+sentenceOf(r.limit, r.class), f.message)
	if r.outcome == agented.OutcomeRateLimited && !r.retryAfter.IsZero() {
		r.reason += "; it says that the limit lifts at " + r.retryAfter.UTC().Format("2006-01-02 15:04:05") + " UTC"
	}
}

// statusIn finds an HTTP status that a message spells out: "unexpected status
// 401", "last status: 429", "API Error: 529", "rejected (429)".
func statusIn(message string) int {
	for _, before := range []string{"status ", "status: ", "API Error: ", "(", `"code":`, "HTTP "} {
		rest := message
		for {
			_, after, found := strings.Cut(rest, before)
			if !found {
				break
			}
			if n, ok := leadingNumber(after); ok && n >= 400 && n <= 599 && len(strconv.Itoa(n)) == 3 {
				return n
			}
			rest = after
		}
	}
	return 0
}

// leadingNumber reads the digits that s starts with, at most nine of them.
func leadingNumber(s string) (int, bool) {
	n := 0
	for n < len(s) && n < 10 && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	if n == 0 || n > 9 {
		return 0, false
	}
	v, err := strconv.Atoi(s[:n])
	return v, err == nil
}

// failed says that the agent or its task failed.
func (r *reading) failed() { r.class, r.outcome = agented.ClassAgentFailure, agented.OutcomeFailed }

// finish gives a reading its outcome when the process ended by itself. bad is
// what the CLI reported as an error, nil if nothing; worked says that it called
// tools; complaint is what it said outside of its protocol.
func (r *reading) finish(exit agented.Exit, bad *failure, worked bool, complaint string) agented.Result {
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
			r.reason = r.program + " ended without a final answer"
			if !worked {
				r.failed()
				r.reason = r.program + " reported success, but gave no answer and used no tool"
			}
		}
	case r.good:
		r.failed()
		r.reason = r.program + " gave a result, but then " + howItEnded(exit)
	case cleanExit(exit):
		// Told to stop, some of them exit 0 in the middle of a turn.
		r.failed()
		r.reason = r.program + " exited with code 0, but without the result that ends its work"
		if q := quote(complaint); q != "" {
			r.reason += "; its last words: " + q
		}
	default:
		r.fail(failure{message: complaint})
		if r.outcome == agented.OutcomeFailed {
			r.reason = saying(fmt.Sprintf("%s %s before it gave a result", r.program, howItEnded(exit)), complaint)
		}
	}
	return r.result()
}

// complaint picks the line that tells most of what a CLI said outside of its
// protocol: the last one that calls itself an error, else the last one that
// says whose fault it is, else the first, since a list of options often follows
// it. Noise lists the beginnings of lines that mean nothing.
func (s *said) complaint(noise ...string) string {
	quiet := func(line string) bool {
		return slices.ContainsFunc(noise, func(n string) bool { return strings.HasPrefix(line, n) })
	}
	found := s.find(func(line string) bool {
		return !quiet(line) && strings.HasPrefix(strings.ToLower(line), "error")
	})
	if found == "" {
		found = s.find(func(line string) bool {
			return !quiet(line) && failure{message: line}.outcome() != agented.OutcomeFailed
		})
	}
	if found != "" {
		return found
	}
	for _, line := range slices.Concat(s.first, s.last) {
		if !quiet(line) {
			return line
		}
	}
	return ""
}

// inner is the sentence inside a message that repeats an API's JSON answer.
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
