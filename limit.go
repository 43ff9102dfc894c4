package agented

import "time"

// Class says whose doing the end of an attempt was, as far as the next attempt
// depends on it. The values are stored and part of the API; the empty one is an
// attempt that went well or that somebody here ended.
type Class string

// The classes.
const (
	ClassAccountLimit Class = "account_limit" // the account's own allowance is used up: five hours, a day, a week
	ClassThrottle     Class = "throttle"      // too many requests just now; other accounts at this address may be hit too
	ClassOverload     Class = "overload"      // the provider has no capacity for anybody
	ClassAuth         Class = "auth"          // the credentials were refused, have expired or are missing
	ClassBilling      Class = "billing"       // no credit is left, or no plan allows it
	ClassNetwork      Class = "network"       // the provider could not be reached, or the connection broke
	ClassAgentFailure Class = "agent_failure" // the agent or its task failed
	ClassInterrupted  Class = "interrupted"   // lost through a fault of ours or the machine's
)

// Classes lists the classes in the order that people see.
var Classes = []Class{
	ClassAccountLimit, ClassThrottle, ClassOverload, ClassAuth, ClassBilling, ClassNetwork, ClassAgentFailure, ClassInterrupted,
}

// OfAccount reports whether the class says something about one account only,
// so that another account may well do.
func (c Class) OfAccount() bool {
	return c == ClassAccountLimit || c == ClassAuth || c == ClassBilling
}

// OfProvider reports whether the class counts for the circuit breaker: the
// provider fails, whoever asks.
func (c Class) OfProvider() bool { return c == ClassOverload || c == ClassNetwork }

// Charged reports whether an attempt that ended so counts against the attempts
// that a trigger allows.
func (c Class) Charged() bool { return c == ClassAgentFailure || c == ClassNetwork }

// Outcome is the outcome that a class means.
func (c Class) Outcome() Outcome {
	switch c {
	case ClassAccountLimit, ClassThrottle, ClassBilling:
		return OutcomeRateLimited
	case ClassOverload, ClassNetwork:
		return OutcomeTransient
	case ClassAuth:
		return OutcomeAuth
	case ClassInterrupted:
		return OutcomeInterrupted
	case ClassAgentFailure:
		return OutcomeFailed
	}
	return OutcomeSuccess
}

// Limit is what an attempt's output says about a limit.
type Limit struct {
	Class    Class
	Until    time.Time // when to try again, as it was printed; zero if nothing was
	Window   string    // of account_limit, if it was named: five_hour, daily, weekly, monthly
	Evidence string    // the sentence or the fields that it was read from, at most MaxEvidence bytes
	Unknown  bool      // it looks like a limit, and no rule knows the wording
}

// MaxEvidence bounds Limit.Evidence in bytes.
const MaxEvidence = 1000
