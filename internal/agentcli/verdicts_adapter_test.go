package agentcli_test

import (
	"encoding/json"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
)

// consumers are the consumers of one attempt's output, as the golden verdicts use them.
type consumers struct {
	line    func(at time.Time, stream agented.Stream, content []byte) (items, ending any)
	result  func(exit agented.Exit, now time.Time) agented.Result
	meter   func() any
	stalled func(at time.Time) (class agented.Class, why string, stalled bool)
	due     func() time.Time
}

// newConsumers returns the consumers for the CLI with the given name. model is the requested one.
func newConsumers(name, model string, prices *agented.Prices, began time.Time) consumers {
	cli, ok := registry.ByName(name)
	if !ok {
		panic("no CLI " + name)
	}
	reader, meter, transcript, stall := agentcli.NewReader(cli), agentcli.NewMeter(model, prices), agentcli.NewTranscript(), agentcli.NewStallDetector(cli, began)
	return consumers{
		line: func(at time.Time, stream agented.Stream, content []byte) (items, ending any) {
			events := agentcli.Decode(cli, stream, content)
			reader.Add(events)
			meter.Add(events)
			if stall != nil {
				stall.Add(at, events)
			}
			if list := transcript.Add(events); len(list) > 0 {
				items = list
			}
			// The commands take an ending only from a line that is one object.
			if e, ok := agentcli.EndingOf(events); ok && json.Valid(content) {
				ending = e
			}
			return items, ending
		},
		result: reader.Result,
		meter: func() any {
			usage := meter.Usage()
			return map[string]any{
				"usage": usage, "model": meter.Model(), "session": meter.Session(), "like": meter.Like(), "unpriced": meter.Unpriced(), "ahead": meter.Ahead(),
			}
		},
		stalled: func(at time.Time) (agented.Class, string, bool) {
			if stall == nil {
				return "", "", false
			}
			s, is := stall.Stalled(at)
			return s.Class, s.Why, is
		},
		due: func() time.Time {
			if stall == nil {
				return time.Time{}
			}
			return stall.FinishedBy()
		},
	}
}
