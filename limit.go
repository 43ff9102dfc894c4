package agented

import "time"

// Class says who is responsible for the end of an attempt, as far as it matters
// for the next attempt. The values are stored and part of the API; the empty
// one is an attempt that succeeded, or that Agented or a user ended.
type Class string

// The classes.
const (
	ClassAccountLimit Class = "account_limit" // the account's own quota is used up: five hours, a day, a week
	ClassThrottle     Class = "throttle"      // too many requests; other accounts of this provider may be affected too
	ClassOverload     Class = "overload"      // the provider has no capacity
	ClassAuth         Class = "auth"          // the credentials were rejected, have expired or are missing
	ClassBilling      Class = "billing"       // no credit is left, or the plan does not allow it
	ClassNetwork      Class = "network"       // the provider could not be reached, or the connection broke
	ClassAgentFailure Class = "agent_failure" // the agent or its task failed
	ClassInterrupted  Class = "interrupted"   // lost through a fault of Agented or of the machine
	ClassNoEffect     Class = "no_effect"     // the agent succeeded, but its outcome contract was not met
)

// Classes lists the classes in the order that people see.
var Classes = []Class{
	ClassAccountLimit, ClassThrottle, ClassOverload, ClassAuth, ClassBilling, ClassNetwork, ClassAgentFailure, ClassNoEffect, ClassInterrupted,
}

// OfAccount reports whether the class concerns one account only, so that
// another account may work.
func (c Class) OfAccount() bool {
	return c == ClassAccountLimit || c == ClassAuth || c == ClassBilling
}

// OfProvider reports whether the class counts for the circuit breaker: the
// provider fails for every account.
func (c Class) OfProvider() bool { return c == ClassOverload || c == ClassNetwork }

// Charged reports whether an attempt that ended with c counts toward the
// attempts that a trigger allows.
func (c Class) Charged() bool { return c == ClassAgentFailure || c == ClassNetwork }

// Outcome returns the outcome of an attempt with the class.
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
	case ClassAgentFailure, ClassNoEffect:
		return OutcomeFailed
	}
	return OutcomeSuccess
}

// Limit is a limit reported in an attempt's output.
type Limit struct {
	Class    Class
	Until    time.Time // when to try again, as printed; zero if nothing was printed
	Window   string    // for account_limit, if named: five_hour, daily, weekly, monthly
	Evidence string    // the sentence or the fields that it was derived from, at most MaxEvidence bytes
	Unknown  bool      // it resembles a limit, but no rule matches the wording
}

// MaxEvidence bounds Limit.Evidence in bytes.
const MaxEvidence = 1000
