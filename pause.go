package agented

import "time"

// Pause is how a running execution stands still. Its state stays running; its
// limits of time and silence do not count meanwhile.
type Pause struct {
	At       time.Time
	Until    time.Time // then it is ended
	Reason   string    // one sentence
	By       string    // who asked; empty: the server itself
	Question Question  // what it asks a person; empty: nothing
	SpentUSD float64   // of a question: what it had cost by then
	LimitUSD float64   // of a question: the ceiling or the budget that was reached
}

// Question is what a paused execution asks. The values are stored and part of
// the API.
type Question string

// The questions.
const (
	QuestionNone    Question = ""
	QuestionCeiling Question = "ceiling" // go on with a higher ceiling, or end?
	QuestionBudget  Question = "budget"  // go on although the budget is used up, or end?
)

// DefaultPause is how long a pause lasts at most before the execution is ended.
const DefaultPause = 24 * time.Hour
