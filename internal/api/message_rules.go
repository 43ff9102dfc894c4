package api

import (
	"fmt"
	"slices"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
)

// maxMessageRules limits the message rules of one trigger.
const maxMessageRules = 50

// MessageRuleFields is a rule for messages that fire a trigger, in requests.
type MessageRuleFields struct {
	To      string                `json:"to" maxLength:"300" doc:"Messages to this agent (NAME or agent:NAME), group:NAME or topic:NAME"`
	Types   []agented.MessageType `json:"types,omitempty" doc:"Only these types. Default: all"`
	Enabled rest.Optional[bool]   `json:"enabled,omitzero" doc:"Default true"`
}

// MessageRuleView is the same in responses.
type MessageRuleView struct {
	To      string                `json:"to" doc:"Address; agents are shown by name"`
	Types   []agented.MessageType `json:"types" doc:"Empty: all"`
	Enabled bool                  `json:"enabled"`
}

func viewMessageRules(directory AgentDirectory, t *agented.Trigger) []MessageRuleView {
	out := []MessageRuleView{}
	for _, r := range t.Messages {
		to := r.To
		if to.Kind == agented.ToAgent {
			to.Name = directory.AgentName(agented.AgentID(to.Name))
		}
		out = append(out, MessageRuleView{To: to.String(), Types: rest.NotNil(r.Types), Enabled: r.Enabled})
	}
	return out
}

// applyMessageRules sets the message rules of a trigger.
func applyMessageRules(directory AgentDirectory, t *agented.Trigger, in rest.Optional[[]MessageRuleFields]) error {
	if !in.Set {
		return nil
	}
	if len(in.Value) > maxMessageRules {
		return agented.InvalidFields([]agented.Field{{Path: "messages", Text: fmt.Sprintf("has too many entries: use at most %d", maxMessageRules)}})
	}
	var bad []agented.Field
	t.Messages = nil
	for i, f := range in.Value {
		r := agented.MessageRule{Types: f.Types, Enabled: true}
		f.Enabled.Into(&r.Enabled, true)
		var err error
		if r.To, err = agented.ParseAddress(f.To); err != nil {
			bad = append(bad, agented.Field{Path: fmt.Sprintf("messages.%d.to", i), Text: agented.Message(err)})
		} else if r.To.Kind != agented.ToAgent && r.To.Kind != agented.ToGroup && r.To.Kind != agented.ToTopic {
			bad = append(bad, agented.Field{Path: fmt.Sprintf("messages.%d.to", i), Text: "must be an agent, a group or a topic"})
		}
		if r.To.Kind == agented.ToAgent {
			if id := directory.AgentID(r.To.Name); id != "" {
				r.To.Name = string(id)
			} else {
				bad = append(bad, agented.Field{Path: fmt.Sprintf("messages.%d.to", i), Text: "is not an agent: create it first"})
			}
		}
		for _, one := range f.Types {
			if !slices.Contains(agented.MessageTypes, one) {
				bad = append(bad, agented.Field{Path: fmt.Sprintf("messages.%d.types", i), Text: "must be some of message, request, response, status, alert, artifact"})
				break
			}
		}
		t.Messages = append(t.Messages, r)
	}
	return agented.InvalidFields(bad)
}
