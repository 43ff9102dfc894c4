package chaos

import (
	"fmt"
	"testing"
)

func TestLineTally(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		printed int
		lines   []int
		want    LineCount
	}{
		{"all", 3, []int{1, 2, 3}, LineCount{Found: 3}},
		{"none", 0, nil, LineCount{}},
		{"one lost", 4, []int{1, 2, 4}, LineCount{Found: 3, Lost: 1}},
		{"the last lost", 3, []int{1, 2}, LineCount{Found: 2, Lost: 1}},
		{"one twice", 3, []int{1, 2, 2, 3}, LineCount{Found: 4, Duplicated: 1}},
		{"an old one again at the end", 3, []int{1, 2, 3, 1}, LineCount{Found: 4, Duplicated: 1}},
		{"two swapped", 4, []int{1, 3, 2, 4}, LineCount{Found: 4, Reordered: 1}},
		{"one that nobody printed", 2, []int{1, 2, 3}, LineCount{Found: 3, Unexpected: 1}},
		{"not a number", 1, []int{1, 0}, LineCount{Found: 2, Unexpected: 1}},
		{"far", 200, []int{200}, LineCount{Found: 1, Lost: 199}},
	} {
		var tally lineTally
		for _, n := range tt.lines {
			tally.add(fmt.Sprintf("line %d", n))
		}
		tt.want.Expected = tt.printed
		if got := tally.count(tt.printed); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func TestReport_violations(t *testing.T) {
	t.Parallel()
	good := func() *Report { v := new(Report); v.Faults.Killed = 1; return v }
	v := good()
	if v.judge(); !v.Passed || len(v.Violations) != 0 {
		t.Errorf("a clean count is judged %+v", v)
	}
	for name, spoil := range map[string]func(*Report){
		"lost in logs":          func(v *Report) { v.Logs.Lost = 1 },
		"duplicated in logs":    func(v *Report) { v.Logs.Duplicated = 1 },
		"reordered in logs":     func(v *Report) { v.Logs.Reordered = 1 },
		"unexpected in logs":    func(v *Report) { v.Logs.Unexpected = 1 },
		"lost to readers":       func(v *Report) { v.Readers.Lost = 1 },
		"duplicated to readers": func(v *Report) { v.Readers.Duplicated = 1 },
		"firing lost":           func(v *Report) { v.Firings.Lost = 1 },
		"firing duplicated":     func(v *Report) { v.Firings.Duplicated = 1 },
		"left running":          func(v *Report) { v.Executions.LeftRunning = 1 },
		"failed":                func(v *Report) { v.Executions.Failed = 1 },
		"agent cut":             func(v *Report) { v.Executions.AgentsInterrupted = 1 },
		"process left":          func(v *Report) { v.ProcessesLeft = []string{"1 sleep"} },
		"nothing tried":         func(v *Report) { v.Faults.Killed = 0 },
	} {
		v := good()
		spoil(v)
		if v.judge(); v.Passed || len(v.Violations) != 1 {
			t.Errorf("%s: kept %v, broken %q", name, v.Passed, v.Violations)
		}
	}
}
