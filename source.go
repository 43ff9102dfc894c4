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

	// NextDue is the first due time that has not been decided, NextRun the same
	// with its jitter. Both are zero when nothing is to come: the schedule or
	// its trigger is disabled, or it is over.
	NextDue time.Time `json:"-"`
	NextRun time.Time `json:"-"`
}

// Defaults and bounds of a Schedule.
const (
	DefaultMissedLimit   = 10
	MaxMissedLimit       = 1000
	DefaultWindowSeconds = 24 * 3600
	MaxWindowSeconds     = 10 * 366 * 24 * 3600
	MaxJitterSeconds     = 24 * 3600
	MaxSchedules         = 100 // of one trigger
)

// WithDefaults returns the schedule with unset words filled in. Numbers whose
// zero has a meaning of its own are filled in where the input is read.
func (s Schedule) WithDefaults() Schedule {
	if s.Missed == "" {
		s.Missed = MissedLatest
	}
	if s.MissedLimit == 0 {
		s.MissedLimit = DefaultMissedLimit
	}
	if s.Overlap == "" {
		s.Overlap = OverlapSkip
		if s.Missed == MissedAll {
			// The first of the runs that are made up for would make skip drop
			// all others.
			s.Overlap = OverlapQueue
		}
	}
	return s
}

// Same reports whether two schedules ask for the same, whatever their ids and
// their state. An anchor that t does not name may be any.
func (s Schedule) Same(t Schedule) bool {
	if t.Anchor.IsZero() {
		s.Anchor = t.Anchor
	}
	for _, times := range [][2]*time.Time{{&s.Anchor, &t.Anchor}, {&s.At, &t.At}, {&s.StartAt, &t.StartAt}, {&s.EndAt, &t.EndAt}} {
		if !times[0].Equal(*times[1]) {
			return false
		}
		*times[0] = *times[1] // the same moment, also when it was written in another zone
	}
	s.ID, s.NextDue, s.NextRun = t.ID, t.NextDue, t.NextRun
	return s == t
}

// TickOutcome is what was done about one due time. The values are stored and
// part of the API.
type TickOutcome string

// TickOutcomes lists the outcomes of a tick.
var TickOutcomes = []TickOutcome{TickFired, TickLate, TickCoalesced, TickSkipped, TickMissed}

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
	Execution ExecutionID // the one it fired, the late one that stands for it, or the cancelled one that a skip leaves; may be empty
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
