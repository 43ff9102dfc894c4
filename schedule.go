package agented

import (
	"time"
)

// Missed is the rule for due times that passed while no server was running.
type Missed string

// The rules for missed due times.
const (
	MissedLatest Missed = "latest" // one late run, for the latest of them
	MissedAll    Missed = "all"    // a run for each, up to MissedLimit
	MissedSkip   Missed = "skip"   // none
)

// Schedule is one recurrence at which a trigger fires. Exactly one of Cron,
// Every and At is set; internal/cron defines their grammar. The JSON names are
// those of the API.
type Schedule struct {
	ID            ScheduleID `json:"id"`
	Cron          string     `json:"cron,omitempty"`  // "30 2 * * 1-5", "@hourly"
	Every         string     `json:"every,omitempty"` // a duration such as "15m", counted from Anchor
	Anchor        time.Time  `json:"anchor,omitzero"` // for Every; defaults to the time of creation
	At            time.Time  `json:"at,omitzero"`     // fires once
	Zone          string     `json:"zone"`            // IANA name; empty: the server's TZ
	Missed        Missed     `json:"missed"`          // default latest
	MissedLimit   int        `json:"missed_limit"`    // for MissedAll; default 10, at most 1000
	WindowSeconds int        `json:"window_seconds"`  // how late a missed due time is still run; default 86400, 0 means no limit
	JitterSeconds int        `json:"jitter_seconds"`  // largest random delay; stable for a due time
	StartAt       time.Time  `json:"start_at,omitzero"`
	EndAt         time.Time  `json:"end_at,omitzero"`
	Overlap       Overlap    `json:"overlap"`           // default skip
	Message       string     `json:"message,omitempty"` // value of {message}
	Enabled       bool       `json:"enabled"`

	// NextDue is the first due time that has not been decided, NextRun the same
	// with its jitter. Both are zero if no due time follows: the schedule or
	// its trigger is disabled, or the schedule has ended.
	NextDue time.Time `json:"-"`
	NextRun time.Time `json:"-"`
}

// Defaults and limits of a Schedule.
const (
	DefaultMissedLimit   = 10
	MaxMissedLimit       = 1000
	DefaultWindowSeconds = 24 * 3600
	MaxWindowSeconds     = 10 * 366 * 24 * 3600
	MaxJitterSeconds     = 24 * 3600
	MaxSchedules         = 100 // per trigger
)

// WithDefaults returns the schedule with its empty text fields filled in.
// Numbers whose zero has a meaning of its own are filled in where the input is
// read.
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
			// With skip, the first catch-up run would suppress all others.
			s.Overlap = OverlapQueue
		}
	}
	return s
}

// Same reports whether two schedules are equivalent, ignoring their ids and
// state. If t has no anchor, any anchor of s matches.
func (s Schedule) Same(t Schedule) bool {
	if t.Anchor.IsZero() {
		s.Anchor = t.Anchor
	}
	for _, times := range [][2]*time.Time{{&s.Anchor, &t.Anchor}, {&s.At, &t.At}, {&s.StartAt, &t.StartAt}, {&s.EndAt, &t.EndAt}} {
		if !times[0].Equal(*times[1]) {
			return false
		}
		*times[0] = *times[1] // the same instant, possibly in another zone
	}
	s.ID, s.NextDue, s.NextRun = t.ID, t.NextDue, t.NextRun
	return s == t
}

// TickOutcome is what happened to one due time. The values are stored and part
// of the API.
type TickOutcome string

// TickOutcomes lists the outcomes of a tick.
var TickOutcomes = []TickOutcome{TickFired, TickLate, TickCoalesced, TickSkipped, TickMissed}

// The outcomes of a tick.
const (
	TickFired     TickOutcome = "fired"
	TickLate      TickOutcome = "late"      // fired late, after the server had been down
	TickCoalesced TickOutcome = "coalesced" // covered by one late run, together with others
	TickSkipped   TickOutcome = "skipped"   // an earlier execution had not ended
	TickMissed    TickOutcome = "missed"    // passed while the server was down, and was not made up for
)

// Tick is one due time of one schedule and its outcome. Each due time has one
// Tick, which never changes.
type Tick struct {
	Schedule  ScheduleID
	Trigger   TriggerID
	DueAt     time.Time
	Outcome   TickOutcome
	Reason    string      // one sentence; empty for fired
	Execution ExecutionID // the execution it fired, the late one that covers it, or the cancelled one that a skip leaves; may be empty
	DecidedAt time.Time
}
