package contract

import (
	"fmt"

	"github.com/agented/agented"
)

// proposed evaluates published after an attempt: a proposal of the kind must have passed the checks.
// It is written only after the execution has succeeded; [agented.Publication.Clause] evaluates what
// came of it.
func proposed(kind agented.PublicationKind, f *Facts) agented.Clause {
	c := agented.Clause{Name: agented.ClausePublished, Text: "no " + kind.Noun() + " was proposed"}
	for i := range f.Published {
		p := &f.Published[i]
		switch {
		case p.Kind == kind && !p.Status.Final():
			return agented.Clause{
				Name: c.Name, Met: true, Pending: true, Text: fmt.Sprintf("the proposed %s passed the checks, and is written after the execution", kind.Noun()),
			}
		case p.Kind == kind || p.Kind == "":
			c.Text = fmt.Sprintf("the proposed %s was refused by the rule %s", kind.Noun(), p.Rule)
			c.Evidence, c.Failed = Bound(p.Reason), f.Repairable != nil && !f.Repairable(p.Rule)
		}
	}
	return c
}
