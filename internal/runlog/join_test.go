package runlog_test

import (
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/runlog"
)

func TestJoiner(t *testing.T) {
	t.Parallel()
	j := runlog.Joiner{Max: 6}
	for _, step := range []struct {
		part     agented.Part
		stream   agented.Stream
		content  string
		line     string
		complete bool
	}{
		{agented.PartWhole, agented.Stdout, "a long whole line", "a long whole line", true},
		{agented.PartFirst, agented.Stdout, "ab", "", false},
		{agented.PartFirst, agented.Stderr, "xy", "", false},
		{agented.PartMiddle, agented.Stdout, "cd", "", false},
		{agented.PartLast, agented.Stderr, "z", "xyz", true},
		{agented.PartLast, agented.Stdout, "efgh", "abcdef", true},
		{agented.PartFirst, agented.Stdout, "lost", "", false},
		{agented.PartFirst, agented.Stdout, "new", "", false},
	} {
		line, complete := j.Add(step.part, step.stream, []byte(step.content))
		if string(line) != step.line || complete != step.complete {
			t.Errorf("%q: %q, %v, want %q, %v", step.content, line, complete, step.line, step.complete)
		}
	}
	rest := map[agented.Stream]string{}
	for stream, line := range j.Incomplete() {
		rest[stream] = string(line)
	}
	if len(rest) != 1 || rest[agented.Stdout] != "new" {
		t.Errorf("incomplete: %v", rest)
	}
	if !j.Begun(agented.Stdout) || j.Begun(agented.Stderr) || j.Len(agented.Stdout) != 3 || j.Len(agented.Stderr) != 0 {
		t.Errorf("begun: %v, %v; sizes %d, %d", j.Begun(agented.Stdout), j.Begun(agented.Stderr), j.Len(agented.Stdout), j.Len(agented.Stderr))
	}
	j.Reset()
	if j.Add(agented.PartMiddle, agented.Stdout, []byte("inner")); j.Begun(agented.Stdout) {
		t.Error("a line without its first part has begun")
	}
	j.Reset()
	if line, _ := j.Add(agented.PartLast, agented.Stdout, []byte("end")); string(line) != "end" {
		t.Errorf("after a reset: %q", line)
	}
}
