package agented

import "time"

// Pause is the pause of a running execution. Its state stays running; paused
// time does not count toward the limits of time and silence.
type Pause struct {
	At       time.Time
	Until    time.Time // when the execution is ended
	Reason   string    // one sentence
	By       string    // who paused it; empty: the server
	Question Question  // the question for a person; empty: none
	SpentUSD float64   // for a question: the cost so far
	LimitUSD float64   // for a question: the ceiling or budget that was reached
}

// Question is the question of a paused execution. The values are stored and
// part of the API.
type Question string

// The questions.
const (
	QuestionNone    Question = ""
	QuestionCeiling Question = "ceiling" // continue with a higher ceiling, or end?
	QuestionBudget  Question = "budget"  // continue over the budget, or end?
)

// DefaultPause is the longest pause before an execution is ended.
const DefaultPause = 24 * time.Hour
