package main

import (
	"fmt"
	"testing"
)

func TestNumberedLinesAreJudgedAsTheyCame(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		printed int
		lines   []int
		want    lineCount
	}{
		{"all", 3, []int{1, 2, 3}, lineCount{Found: 3}},
		{"none", 0, nil, lineCount{}},
		{"one lost", 4, []int{1, 2, 4}, lineCount{Found: 3, Lost: 1}},
		{"the last lost", 3, []int{1, 2}, lineCount{Found: 2, Lost: 1}},
		{"one twice", 3, []int{1, 2, 2, 3}, lineCount{Found: 4, Doubled: 1}},
		{"an old one again at the end", 3, []int{1, 2, 3, 1}, lineCount{Found: 4, Doubled: 1}},
		{"two swapped", 4, []int{1, 3, 2, 4}, lineCount{Found: 4, Reordered: 1}},
		{"one that nobody printed", 2, []int{1, 2, 3}, lineCount{Found: 3, Strange: 1}},
		{"not a number", 1, []int{1, 0}, lineCount{Found: 2, Strange: 1}},
		{"far", 200, []int{200}, lineCount{Found: 1, Lost: 199}},
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

func TestEachBrokenPromiseIsNamed(t *testing.T) {
	t.Parallel()
	good := func() *verdict { v := new(verdict); v.Torments.Killed = 1; return v }
	v := good()
	if v.judge(); !v.Kept || len(v.Broken) != 0 {
		t.Errorf("a clean count is judged %+v", v)
	}
	for name, spoil := range map[string]func(*verdict){
		"lost in logs":       func(v *verdict) { v.Logs.Lost = 1 },
		"doubled in logs":    func(v *verdict) { v.Logs.Doubled = 1 },
		"reordered in logs":  func(v *verdict) { v.Logs.Reordered = 1 },
		"strange in logs":    func(v *verdict) { v.Logs.Strange = 1 },
		"lost to readers":    func(v *verdict) { v.Readers.Lost = 1 },
		"doubled to readers": func(v *verdict) { v.Readers.Doubled = 1 },
		"firing lost":        func(v *verdict) { v.Firings.Lost = 1 },
		"firing doubled":     func(v *verdict) { v.Firings.Doubled = 1 },
		"left running":       func(v *verdict) { v.Executions.LeftRunning = 1 },
		"failed":             func(v *verdict) { v.Executions.Failed = 1 },
		"agent cut":          func(v *verdict) { v.Executions.AgentsCut = 1 },
		"process left":       func(v *verdict) { v.ProcessesLeft = []string{"1 sleep"} },
		"nothing tried":      func(v *verdict) { v.Torments.Killed = 0 },
	} {
		v := good()
		spoil(v)
		if v.judge(); v.Kept || len(v.Broken) != 1 {
			t.Errorf("%s: kept %v, broken %q", name, v.Kept, v.Broken)
		}
	}
}
