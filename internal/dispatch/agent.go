package dispatch

import (
	"context"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
)

// agentBook caches the agents for firings that are decided within a transaction, where the store
// cannot be queried.
type agentBook map[string]*agented.Agent // by id, and by lower-case name

// ReloadAgents reloads the agents from the store. It must be called after each change of an
// agent, before the change is acknowledged.
func (d *Dispatcher) ReloadAgents(ctx context.Context) error {
	book := agentBook{}
	page := store.Page{Limit: 200}
	for {
		list, next, err := d.o.DB.Agents(ctx, page)
		if err != nil {
			return err
		}
		for i := range list {
			book[strings.ToLower(list[i].Name)] = &list[i]
		}
		for i := range list {
			book[string(list[i].ID)] = &list[i] // ids take precedence over names
		}
		if next == "" {
			d.agents.Store(&book)
			return nil
		}
		page.Cursor = next
	}
}

// withAgent completes a spec that names an agent with the agent's spec.
func (d *Dispatcher) withAgent(s agented.Spec) (agented.Spec, error) {
	if s.Agent == "" {
		return s, nil
	}
	a, err := d.EnabledAgent(s.Agent)
	if err != nil {
		return s, err
	}
	return a.Fill(s), nil
}

// EnabledAgent returns an agent by id or, ignoring case, by name. It returns Conflict if there is
// none, or it is disabled.
func (d *Dispatcher) EnabledAgent(idOrName string) (*agented.Agent, error) {
	var a *agented.Agent
	if book := d.agents.Load(); book != nil {
		if a = (*book)[idOrName]; a == nil {
			a = (*book)[strings.ToLower(idOrName)]
		}
	}
	switch {
	case a == nil:
		return nil, agented.Errorf(agented.Conflict, "there is no agent %q: create it, or change the trigger", idOrName)
	case !a.Enabled:
		return nil, agented.Errorf(agented.Conflict, "agent %q is disabled: enable it first", a.Name)
	}
	return a, nil
}

// agentOf returns an agent by id, or nil if there is none.
func (d *Dispatcher) agentOf(id agented.AgentID) *agented.Agent {
	if book := d.agents.Load(); book != nil {
		return (*book)[string(id)]
	}
	return nil
}

// AgentName returns the name of an agent, or the id itself if there is no such agent.
func (d *Dispatcher) AgentName(id agented.AgentID) string {
	if book := d.agents.Load(); book != nil {
		if a := (*book)[string(id)]; a != nil {
			return a.Name
		}
	}
	return string(id)
}

// AgentID returns the id of an agent by id or, ignoring case, by name. It returns "" if there is
// none.
func (d *Dispatcher) AgentID(idOrName string) agented.AgentID {
	if book := d.agents.Load(); book != nil {
		if a := (*book)[idOrName]; a != nil {
			return a.ID
		}
		if a := (*book)[strings.ToLower(idOrName)]; a != nil {
			return a.ID
		}
	}
	return ""
}
