package backend

import (
	"time"

	"github.com/agented/agented"
)

// geminiReader reads what the CLI prints.
type geminiReader struct {
	read  reading
	final answer
	other said
}

func (c *geminiReader) Line(stream agented.Stream, content []byte) { c.other.add(content) }

func (c *geminiReader) Result(exit agented.Exit, now time.Time) agented.Result {
	if !byItself(exit) {
		return c.read.ended(exit)
	}
	return c.read.result()
}
