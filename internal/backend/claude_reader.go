package backend

import (
	"time"

	"github.com/agented/agented"
)

// claudeReader reads what the CLI prints.
type claudeReader struct {
	read  reading
	final answer
	other said
}

func (c *claudeReader) Line(stream agented.Stream, content []byte) { c.other.add(content) }

func (c *claudeReader) Result(exit agented.Exit, now time.Time) agented.Result {
	if !byItself(exit) {
		return c.read.ended(exit)
	}
	return c.read.result()
}
