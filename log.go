package agented

import "time"

// Seq numbers the lines of one execution's log from 1, over all its attempts
// and streams. It is also the SSE event id. 0 means "before the first line".
type Seq int64

// Stream is the origin of a line. The values are part of the API.
type Stream string

// The streams of a run log.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
	System Stream = "system" // written by Agented: its actions and their reasons
)

// Valid reports whether s is one of the three streams.
func (s Stream) Valid() bool { return s == Stdout || s == Stderr || s == System }

// Part is the position of a record in a line that was split; empty for a whole
// line. A line is split when it exceeds 1 MiB or stays unfinished for a second.
// The values are part of the API.
type Part string

// The parts. Every split line has one first part, any number of middle parts
// and one last part, which may be empty.
const (
	PartWhole  Part = ""
	PartFirst  Part = "first"
	PartMiddle Part = "middle"
	PartLast   Part = "last"
)

// LogLine is one record of a run log.
type LogLine struct {
	Seq     Seq
	At      time.Time // when it was read from the CLI, in microseconds, UTC
	Attempt int
	Stream  Stream
	Part    Part
	NoEOL   bool   // the stream ended here without a newline
	Content []byte // as printed, masked, without the newline; may contain any bytes
}
