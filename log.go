package agented

import "time"

// Seq numbers the lines of one execution's log from 1, over all its attempts
// and streams. It is also the SSE event id. 0 is "before the first line".
type Seq int64

// Stream says where a line came from. The values are part of the API.
type Stream string

// The streams of a run log.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
	System Stream = "system" // written by Agented: what it did and why
)

// Valid reports whether s is one of the three streams.
func (s Stream) Valid() bool { return s == Stdout || s == Stderr || s == System }

// Part says which piece of a line that was cut a record is; empty for a whole
// line. A line is cut when it grows past 1 MiB or stays unfinished for a
// second. The values are part of the API.
type Part string

// The parts. Every cut line has one first, any number of middles and one last
// (which may be empty).
const (
	PartWhole  Part = ""
	PartFirst  Part = "first"
	PartMiddle Part = "middle"
	PartLast   Part = "last"
)

// LogLine is one record of a run log.
type LogLine struct {
	Seq     Seq
	At      time.Time // when it was read from the CLI, microseconds, UTC
	Attempt int
	Stream  Stream
	Part    Part
	NoEOL   bool   // the stream ended here without a newline
	Content []byte // as printed, masked, without the newline; may hold any bytes
}
