// Package chaos is the fault-injection test: it crashes a test server under load and counts the damage.
package chaos

import (
	"fmt"
	"strconv"
	"strings"
)

// Options holds the parameters of a test run.
type Options struct {
	Seconds, Executions, Rate int
	Seed                      uint64
	Keep, Sabotage            bool
	Say                       func(line bool, format string, args ...any) // reports progress; line keeps the text on a line of its own
}

// Report is the result of a test run; its JSON is the output of --json.
type Report struct {
	Passed     bool     `json:"passed"` // every guarantee held
	Violations []string `json:"violations"`
	Seed       uint64   `json:"seed"`
	Seconds    float64  `json:"seconds"`
	Folder     string   `json:"folder,omitempty"` // set if the folder was kept

	Faults struct {
		Killed    int `json:"killed"`
		Frozen    int `json:"frozen"`
		Restarted int `json:"restarted"`
		// Time from the start of a new server to its first successful readiness probe.
		ReadyMedian float64 `json:"ready_median_seconds"`
		ReadyMax    float64 `json:"ready_max_seconds"`
	} `json:"faults"`

	Logs    LineCount `json:"logs"`    // lines in the logs
	Readers LineCount `json:"readers"` // lines that clients received

	Firings struct {
		Acknowledged int `json:"acknowledged"`
		Ran          int `json:"ran"`
		Lost         int `json:"lost"`
		Duplicated   int `json:"duplicated"`
		Repeated     int `json:"repeated"` // keys and deliveries sent more than once
	} `json:"firings"`

	Executions struct {
		Started           int `json:"started"`
		Succeeded         int `json:"succeeded"`
		LeftRunning       int `json:"left_running"`
		Failed            int `json:"failed"`
		AgentsInterrupted int `json:"agents_interrupted"` // agents that did not run to their end
	} `json:"executions"`

	ProcessesLeft []string `json:"processes_left"`
}

// LineCount compares the lines found with the number of lines printed.
type LineCount struct {
	Readers    int `json:"readers,omitempty"`
	Expected   int `json:"expected"`
	Found      int `json:"found"`
	Lost       int `json:"lost"`
	Duplicated int `json:"duplicated"`
	Reordered  int `json:"reordered"`
	Unexpected int `json:"unexpected"` // lines that no agent printed
}

func (c *LineCount) add(o LineCount) {
	c.Expected += o.Expected
	c.Found += o.Found
	c.Lost += o.Lost
	c.Duplicated += o.Duplicated
	c.Reordered += o.Reordered
	c.Unexpected += o.Unexpected
}

// lineTally counts the lines of one execution in order of arrival.
type lineTally struct {
	seen       []uint64 // one bit per line number
	last       int
	found      int
	duplicated int
	late       int
	unexpected int
}

const linePrefix = "line "

// add counts one line.
func (t *lineTally) add(content string) {
	t.found++
	text, ok := strings.CutPrefix(content, linePrefix)
	n, err := strconv.Atoi(text)
	if !ok || err != nil || n < 1 || n > 1<<30 {
		t.unexpected++
		return
	}
	for n/64 >= len(t.seen) {
		t.seen = append(t.seen, make([]uint64, max(64, len(t.seen)))...)
	}
	bit := uint64(1) << (n % 64)
	switch {
	case t.seen[n/64]&bit != 0:
		t.duplicated++
		return
	case n < t.last:
		t.late++
	}
	t.seen[n/64] |= bit
	t.last = max(t.last, n)
}

// count compares the tally with the number of lines that were printed.
func (t *lineTally) count(printed int) LineCount {
	c := LineCount{Expected: printed, Found: t.found, Duplicated: t.duplicated, Reordered: t.late, Unexpected: t.unexpected}
	for n := 1; n <= max(printed, t.last); n++ {
		there := n/64 < len(t.seen) && t.seen[n/64]&(1<<(n%64)) != 0
		switch {
		case n <= printed && !there:
			c.Lost++
		case n > printed && there:
			c.Unexpected++
		}
	}
	return c
}

// judge records which guarantees were violated.
func (v *Report) judge() {
	v.Violations = []string{}
	say := func(n int, what string) {
		if n != 0 {
			v.Violations = append(v.Violations, fmt.Sprintf("%s: %d", what, n))
		}
	}
	for _, c := range []struct {
		LineCount
		where string
	}{{v.Logs, "in the logs"}, {v.Readers, "on the way to readers"}} {
		say(c.Lost, "lines missing "+c.where)
		say(c.Duplicated, "lines duplicated "+c.where)
		say(c.Reordered, "lines out of order "+c.where)
		say(c.Unexpected, "unexpected lines "+c.where)
	}
	say(v.Firings.Lost, "acknowledged firings that did not run")
	say(v.Firings.Duplicated, "firings that ran more than once")
	say(v.Executions.LeftRunning, "executions that did not end")
	say(v.Executions.Failed, "executions that did not succeed")
	say(v.Executions.AgentsInterrupted, "agents that ended together with the server")
	say(len(v.ProcessesLeft), "processes that outlived their execution")
	if v.Faults.Killed+v.Faults.Frozen+v.Faults.Restarted == 0 {
		v.Violations = append(v.Violations, "no fault was injected: the server never became ready")
	}
	v.Passed = len(v.Violations) == 0
}
