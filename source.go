package agented

import (
	"encoding/json"
	"time"
)

// Missed says what becomes of due times that passed while no server was there
// to see them.
type Missed string

// The rules for missed due times.
const (
	MissedLatest Missed = "latest" // one late run, for the latest of them
	MissedAll    Missed = "all"    // a run for each, up to MissedLimit
	MissedSkip   Missed = "skip"   // none
)

// Schedule is one rhythm in which a trigger fires. Exactly one of Cron, Every
// and At is set; their grammar is in internal/cron. The JSON names are those of
// the API.
type Schedule struct {
	ID            ScheduleID `json:"id"`
	Cron          string     `json:"cron,omitempty"`  // "30 2 * * 1-5", "@hourly"
	Every         string     `json:"every,omitempty"` // a duration such as "15m", counted from Anchor
	Anchor        time.Time  `json:"anchor,omitzero"` // of Every; when the schedule was made, if not given
	At            time.Time  `json:"at,omitzero"`     // once
	Zone          string     `json:"zone"`            // IANA name; empty is the server's TZ
	Missed        Missed     `json:"missed"`          // default latest
	MissedLimit   int        `json:"missed_limit"`    // of MissedAll; default 10, at most 1000
	WindowSeconds int        `json:"window_seconds"`  // how late a missed due time still counts; default 86400, 0 is for ever
	JitterSeconds int        `json:"jitter_seconds"`  // fires up to so much later, the same for the same due time
	StartAt       time.Time  `json:"start_at,omitzero"`
	EndAt         time.Time  `json:"end_at,omitzero"`
	Overlap       Overlap    `json:"overlap"`           // default skip
	Message       string     `json:"message,omitempty"` // fills {message}
	Enabled       bool       `json:"enabled"`
}

// TickOutcome is what was done about one due time. The values are stored and
// part of the API.
type TickOutcome string

// The outcomes of a tick.
const (
	TickFired     TickOutcome = "fired"
	TickLate      TickOutcome = "late"      // fired, after the server had been away
	TickCoalesced TickOutcome = "coalesced" // one late run stands for it and others
	TickSkipped   TickOutcome = "skipped"   // an earlier execution had not ended
	TickMissed    TickOutcome = "missed"    // nobody was there, and it is not made up for
)

// Tick is one due time of one schedule and what was done about it. There is
// one for each, and it never changes.
type Tick struct {
	Schedule  ScheduleID
	Trigger   TriggerID
	DueAt     time.Time
	Outcome   TickOutcome
	Reason    string      // one sentence; empty for fired
	Execution ExecutionID // the one it fired, or the late one that stands for it
	DecidedAt time.Time
}

// Webhook is one rule by which calls from outside fire a trigger. What is in
// Auth and Match is the grammar of internal/webhook.
type Webhook struct {
	ID        string          `json:"id"`     // "whk-…"
	Source    Source          `json:"source"` // github or webhook
	Enabled   bool            `json:"enabled"`
	Auth      json.RawMessage `json:"auth,omitempty"`  // of webhook: how a call proves that it is genuine
	Match     json.RawMessage `json:"match,omitempty"` // which calls fire
	Supersede bool            `json:"supersede"`       // a newer push to the same pull request or branch replaces what waits or runs
	Secret    string          `json:"-"`               // write-only; sealed at rest; empty for github: GITHUB_WEBHOOK_SECRET
}

// Verdict is what became of an inbound call. The values are stored and part of
// the API.
type Verdict string

// The verdicts.
const (
	VerdictAccepted  Verdict = "accepted"  // it fired something
	VerdictIgnored   Verdict = "ignored"   // genuine, and no rule matched
	VerdictDuplicate Verdict = "duplicate" // the same delivery id came before
	VerdictRejected  Verdict = "rejected"  // not genuine, or not readable
)
