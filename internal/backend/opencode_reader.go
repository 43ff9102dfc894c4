package backend

import (
	"time"

	"github.com/agented/agented"
)

// openCodeReader reads what the CLI prints.
type openCodeReader struct {
	read  reading
	final answer
	other said
}

func (c *openCodeReader) Line(stream agented.Stream, content []byte) { c.other.add(content) }

func (c *openCodeReader) Result(exit agented.Exit, now time.Time) agented.Result {
	if !byItself(exit) {
		return c.read.ended(exit)
	}
	return c.read.result()
}
