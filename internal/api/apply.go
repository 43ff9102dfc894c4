package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/naming"
	"github.com/agented/agented/internal/store"
)

// maxApply limits the request body of an apply, in bytes.
const maxApply = 32 << 20

// aboutApply is the text of the operations that apply objects.
const aboutApply = "Creates the object of each item's name, or updates it like PATCH. All items are validated and stored in one transaction: if one is invalid, nothing is stored. The location of an error names its item. With `set`, created objects belong to that set; with `prune`, objects of the set that are not among the items are deleted."

// applyRoute returns the route that applies triggers.
func (h *triggers) applyRoute() rest.Route {
	return rest.Op("POST /api/v1/triggers/apply", agented.RoleAdmin, h.applyAll, rest.About{
		ID: "apply-triggers", Tag: "triggers", Summary: "Apply triggers", Status: http.StatusOK, Errors: []int{http.StatusConflict}, Text: aboutApply, MaxBody: maxApply,
	})
}

// applyRoute returns the route that applies agents.
func (h *agents) applyRoute() rest.Route {
	return rest.Op("POST /api/v1/agents/apply", agented.RoleAdmin, h.applyAll, rest.About{
		ID: "apply-agents", Tag: "agents", Summary: "Apply agents", Status: http.StatusOK, Errors: []int{http.StatusConflict}, Text: aboutApply, MaxBody: maxApply,
	})
}

// ApplyOf is the request to apply a list of objects.
type ApplyOf[T any] struct {
	Items []T    `json:"items" maxItems:"5000" doc:"The desired objects, each with its name"`
	Set   string `json:"set,omitempty" maxLength:"100" doc:"Name of the set that created objects belong to"`
	Prune bool   `json:"prune,omitempty" doc:"Delete objects of the set that are not among the items"`
}

// AppliedOf is the result for one object.
type AppliedOf[V any] struct {
	Name   string `json:"name"`
	ID     string `json:"id" doc:"Empty for an object that a dry run would create"`
	Action string `json:"action" enum:"created,changed,unchanged,deleted"`
	Before *V     `json:"before,omitempty" doc:"State before; omitted for a new object"`
	After  *V     `json:"after,omitempty" doc:"State after, or the state that a dry run would produce; omitted for a deleted object"`
}

// AppliedAll is the result for all objects, in the order of the items.
type AppliedAll[V any] struct {
	Items  []AppliedOf[V] `json:"items"`
	DryRun bool           `json:"dry_run" doc:"Nothing was stored"`
}

// applier applies objects of one kind. Its functions are called in a
// transaction.
type applier[T, V any] struct {
	of     store.AppliedSet
	noun   string
	name   func(*T) string
	one    func(ctx context.Context, fields *T) (id string, before, after *V, changed bool, err error)
	remove func(ctx context.Context, id string) error
}

// run applies all items or none of them.
func (a applier[T, V]) run(ctx context.Context, db *store.DB, in *ApplyOf[T], keep bool) (*AppliedAll[V], bool, error) {
	if in.Prune && in.Set == "" {
		return nil, false, agented.InvalidFields([]agented.Field{{Path: "set", Text: "is required with prune: only objects that were created with the same set are deleted"}})
	}
	out, stored := &AppliedAll[V]{Items: []AppliedOf[V]{}, DryRun: !keep}, false
	err := db.Together(ctx, "apply "+a.noun+"s", keep, func(ctx context.Context) error {
		named := map[string]int{}
		var bad []agented.Field
		for i := range in.Items {
			at := fmt.Sprintf("items.%d", i)
			name := a.name(&in.Items[i])
			if name != "" {
				if first, twice := named[naming.Key(name)]; twice {
					bad = append(bad, agented.Field{Path: at + ".name", Text: fmt.Sprintf("is also the name of item %d: names must be unique", first)})
					continue
				}
				named[naming.Key(name)] = i
			}
			id, before, after, changed, err := a.one(ctx, &in.Items[i])
			if err != nil {
				fields, ok := inItem(at, err)
				if !ok {
					return err
				}
				bad = append(bad, fields...)
				continue
			}
			done := AppliedOf[V]{Name: name, ID: id, Action: "unchanged", Before: before, After: after}
			switch {
			case before == nil:
				done.Action = "created"
				if in.Set != "" {
					if err := db.NoteApplied(ctx, a.of, id, in.Set); err != nil {
						return err
					}
				}
				if !keep {
					done.ID = ""
				}
			case changed:
				done.Action = "changed"
			}
			stored = stored || done.Action != "unchanged"
			out.Items = append(out.Items, done)
		}
		if len(bad) > 0 {
			return agented.InvalidFields(bad)
		}
		if !in.Prune {
			return nil
		}
		members, err := db.InSet(ctx, a.of, in.Set)
		if err != nil {
			return err
		}
		for _, m := range members {
			if _, wanted := named[naming.Key(m.Name)]; wanted {
				continue
			}
			if err := a.remove(ctx, m.ID); err != nil {
				return err
			}
			stored = true
			out.Items = append(out.Items, AppliedOf[V]{Name: m.Name, ID: m.ID, Action: "deleted"})
		}
		return nil
	})
	return out, stored && keep, err
}

// inItem moves the fields of an error to those of an item. ok is false for an
// error that is not about the request.
func inItem(at string, err error) (fields []agented.Field, ok bool) {
	var e *agented.Error
	if !errors.As(err, &e) || e.Kind != agented.Invalid && e.Kind != agented.Conflict && e.Kind != agented.NotFound {
		return nil, false
	}
	for _, f := range e.Fields {
		fields = append(fields, agented.Field{Path: at + "." + f.Path, Text: f.Text})
	}
	if len(fields) == 0 {
		fields = []agented.Field{{Path: at, Text: e.Text}}
	}
	return fields, true
}

type applyInput[T any] struct {
	DryRun string `query:"dry_run" enum:"true,false" doc:"true: validate the request and return the result without storing it"`
	Body   ApplyOf[T]
}

func (h *triggers) applyAll(ctx context.Context, in *applyInput[TriggerCreate]) (*rest.Output[AppliedAll[TriggerView]], error) {
	h.changing.Lock()
	defer h.changing.Unlock()
	a := applier[TriggerCreate, TriggerView]{
		of: store.AppliedTriggers, noun: "trigger", name: func(f *TriggerCreate) string { return f.Name.Value },
		one: func(ctx context.Context, f *TriggerCreate) (string, *TriggerView, *TriggerView, bool, error) {
			t, err := h.db.TriggerByName(ctx, f.Name.Value)
			if agented.KindOf(err) == agented.NotFound {
				t, err = h.storeNew(ctx, &f.TriggerFields)
				if err != nil {
					return "", nil, nil, false, err
				}
				after := h.show(ctx, t)
				return string(t.ID), nil, &after, true, nil
			}
			if err != nil {
				return "", nil, nil, false, err
			}
			before := h.show(ctx, t)
			changed, err := h.store(ctx, t, &f.TriggerFields)
			after := h.show(ctx, t)
			return string(t.ID), &before, &after, changed, err
		},
		remove: func(ctx context.Context, id string) error {
			return h.db.DeleteTrigger(ctx, agented.TriggerID(id), rest.Principal(ctx).Name)
		},
	}
	out, stored, err := a.run(ctx, h.db, &in.Body, in.DryRun != "true")
	if err != nil {
		return nil, err
	}
	if stored {
		h.changed()
	}
	return rest.Reply(*out), nil
}

func (h *agents) applyAll(ctx context.Context, in *applyInput[AgentCreate]) (*rest.Output[AppliedAll[AgentView]], error) {
	h.changing.Lock()
	defer h.changing.Unlock()
	a := applier[AgentCreate, AgentView]{
		of: store.AppliedAgents, noun: "agent", name: func(f *AgentCreate) string { return f.Name.Value },
		one: func(ctx context.Context, f *AgentCreate) (string, *AgentView, *AgentView, bool, error) {
			g, err := h.db.Agent(ctx, f.Name.Value)
			if agented.KindOf(err) == agented.NotFound {
				if g, err = h.storeNew(ctx, &f.AgentFields); err != nil {
					return "", nil, nil, false, err
				}
				after := h.show(ctx, g)
				return string(g.ID), nil, &after, true, nil
			}
			if err != nil {
				return "", nil, nil, false, err
			}
			before := h.show(ctx, g)
			changed, err := h.store(ctx, g, &f.AgentFields)
			after := h.show(ctx, g)
			return string(g.ID), &before, &after, changed, err
		},
		remove: func(ctx context.Context, id string) error {
			return h.db.DeleteAgent(ctx, agented.AgentID(id), rest.Principal(ctx).Name)
		},
	}
	out, stored, err := a.run(ctx, h.db, &in.Body, in.DryRun != "true")
	if err == nil && stored {
		err = h.changed(ctx)
	}
	if err != nil {
		return nil, err
	}
	return rest.Reply(*out), nil
}
