package api

import (
	"fmt"
	"slices"

	"github.com/agented/agented"
)

// maxMessageRules bounds the messages of one trigger.
const maxMessageRules = 50

// MessageRuleFields is one kind of message that fires a trigger, in requests.
type MessageRuleFields struct {
	To      string                `json:"to" maxLength:"300" doc:"Messages to this agent (NAME or agent:NAME), group:NAME or topic:NAME"`
	Types   []agented.MessageType `json:"types,omitempty" doc:"Only these types. Default: all"`
	Enabled optional[bool]        `json:"enabled,omitzero" doc:"Default true"`
}

// MessageRuleView is the same in answers.
type MessageRuleView struct {
	To      string                `json:"to" doc:"Address; of an agent with its name"`
	Types   []agented.MessageType `json:"types" doc:"Empty: all"`
	Enabled bool                  `json:"enabled"`
}

func (s *Server) viewMessageRules(t *agented.Trigger) []MessageRuleView {
	out := []MessageRuleView{}
	for _, r := range t.Messages {
		to := r.To
		if to.Kind == agented.ToAgent {
			to.Name = s.o.Dispatch.AgentName(agented.AgentID(to.Name))
		}
		out = append(out, MessageRuleView{To: to.String(), Types: list(r.Types), Enabled: r.Enabled})
	}
	return out
}

// applyMessageRules changes which messages fire a trigger.
func (s *Server) applyMessageRules(t *agented.Trigger, in optional[[]MessageRuleFields]) error {
	if !in.set {
		return nil
	}
	if len(in.value) > maxMessageRules {
		return agented.InvalidFields([]agented.Field{{Path: "messages", Text: fmt.Sprintf("has too many entries: use at most %d", maxMessageRules)}})
	}
	var bad []agented.Field
	t.Messages = nil
	for i, f := range in.value {
		r := agented.MessageRule{Types: f.Types, Enabled: true}
		f.Enabled.into(&r.Enabled, true)
		var err error
		if r.To, err = agented.ParseAddress(f.To); err != nil {
			bad = append(bad, agented.Field{Path: fmt.Sprintf("messages.%d.to", i), Text: agented.Message(err)})
		} else if r.To.Kind != agented.ToAgent && r.To.Kind != agented.ToGroup && r.To.Kind != agented.ToTopic {
			bad = append(bad, agented.Field{Path: fmt.Sprintf("messages.%d.to", i), Text: "must be an agent, a group or a topic"})
		}
		if r.To.Kind == agented.ToAgent {
			if id := s.o.Dispatch.AgentID(r.To.Name); id != "" {
				r.To.Name = string(id)
			} else {
				bad = append(bad, agented.Field{Path: fmt.Sprintf("messages.%d.to", i), Text: "names no agent: create it first"})
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
