package agentcli_test

import (
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
)

// The consumers of events, fed with lines.
type (
	lineReader struct {
		cli agentcli.CLI
		*agentcli.Reader
	}
	lineMeter struct {
		cli agentcli.CLI
		*agentcli.Meter
	}
	lineTranscript struct {
		cli agentcli.CLI
		*agentcli.Transcript
	}
	lineStall struct {
		cli agentcli.CLI
		*agentcli.StallDetector
	}
)

func newMeter(name, model string, prices *agented.Prices) lineMeter {
	return lineMeter{anyCLI(name), agentcli.NewMeter(model, prices)}
}

func newTranscript(name string) lineTranscript {
	return lineTranscript{anyCLI(name), agentcli.NewTranscript()}
}

func newStall(cli agentcli.CLI, began time.Time) lineStall {
	return lineStall{cli, agentcli.NewStallDetector(cli, began)}
}

// anyCLI returns the CLI with the given name, otherwise command.
func anyCLI(name string) agentcli.CLI {
	if cli, ok := registry.ByName(name); ok {
		return cli
	}
	return registry.All()[0]
}

func (r lineReader) Line(stream agented.Stream, content []byte) {
	r.Add(agentcli.Decode(r.cli, stream, content))
}

func (m lineMeter) Line(stream agented.Stream, content []byte) {
	m.Add(agentcli.Decode(m.cli, stream, content))
}

func (t lineTranscript) Line(content []byte) []agentcli.Item {
	return t.Add(agentcli.Decode(t.cli, agented.Stdout, content))
}

func (p lineStall) Line(at time.Time, stream agented.Stream, content []byte) {
	p.Add(at, agentcli.Decode(p.cli, stream, content))
}
