package dispatch

import (
	"context"
	"maps"
	"slices"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/backend"
)

// current is the attempt that an execution is at; nil before the first.
func current(e *agented.Execution) *agented.Attempt {
	for i := range e.Attempts {
		if e.Attempts[i].Number == e.AttemptNo {
			return &e.Attempts[i]
		}
	}
	return nil
}

// backendOf is the backend of the attempt that an execution is at, which need
// not be its trigger's first choice.
func backendOf(e *agented.Execution) string {
	if a := current(e); a != nil && a.Backend != "" {
		return a.Backend
	}
	return e.Backend
}

// specOf is what the attempt runs: the snapshot as it applies to the backend
// that was picked.
func specOf(e *agented.Execution) agented.Spec {
	spec := e.Snapshot
	a := current(e)
	if a == nil || a.Backend == "" || spec.Backend == agented.BackendCommand {
		return spec
	}
	if a.Backend != spec.Backend {
		spec.Backend, spec.Args = a.Backend, nil // arguments belong to one CLI
		spec.Model = ""
	}
	if e.Probes == "" {
		spec.Model = a.Model
	}
	return spec
}

// accountOf is the account of the attempt that an execution is at; nil when it
// needs none.
func (d *Dispatcher) accountOf(ctx context.Context, e *agented.Execution) (*agented.Account, error) {
	a := current(e)
	if a == nil || a.Account == "" {
		return nil, nil
	}
	return d.o.DB.Account(ctx, a.Account)
}

// accountEnv is what an account gives to a child: for the default one what the
// server's environment has for its backend, for all others their own
// credentials and folder in place of the server's.
func (d *Dispatcher) accountEnv(b backend.Backend, a *agented.Account) (map[string]string, error) {
	server := map[string]string{}
	if d.o.Account != nil {
		server = d.o.Account(b.Name())
	}
	if a == nil || a.Default {
		return server, nil
	}
	out := map[string]string{}
	home := agented.ConfigVariable(b.Name())
	for name, value := range server {
		if !agented.SecretName(name) && name != home {
			out[name] = value // where the API is, and the like
		}
	}
	own, err := d.openCredentials(a.ID, a.Credentials)
	if err != nil {
		return nil, err
	}
	maps.Copy(out, own)
	if a.Config != "" {
		out[home] = a.Config
	}
	return out, nil
}

func (d *Dispatcher) openCredentials(id agented.AccountID, sealed map[string]string) (map[string]string, error) {
	out := make(map[string]string, len(sealed))
	for name, value := range sealed {
		if d.o.OpenCredential != nil {
			var err error
			if value, err = d.o.OpenCredential(id, name, value); err != nil {
				return nil, err
			}
		}
		out[name] = value
	}
	return out, nil
}

// accountSecrets lists the credentials that the attempt has or had.
func (d *Dispatcher) accountSecrets(ctx context.Context, e *agented.Execution) ([]string, error) {
	a, err := d.accountOf(ctx, e)
	if agented.KindOf(err) == agented.NotFound && err != nil {
		return nil, nil // it cannot be deleted while it is in use
	}
	if a == nil || err != nil {
		return nil, err
	}
	former, err := d.o.DB.FormerCredentials(ctx, a.ID)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, sealed := range []map[string]string{a.Credentials, former} {
		open, err := d.openCredentials(a.ID, sealed)
		if err != nil {
			continue // then no process got them either
		}
		out = slices.AppendSeq(out, maps.Values(open))
	}
	return out, nil
}

// goOn is what the agent is told when its session goes on.
const goOn = "You were interrupted by something outside of your task (a limit, an overload, or a restart of the machine). " +
	"Go on where you were interrupted: first look at what is done already, do not do it again, and finish the task."

// begunBefore is what an agent that begins afresh is told beside its task.
const begunBefore = "\n\nNote: an earlier attempt at this task was interrupted. It worked in this same directory. " +
	"Look at what is there before you begin, and do not do again what is done."

// continuation is how an attempt goes on from those before it.
type continuation struct {
	session string // to resume; empty: begin afresh
	prompt  string
	note    string // for the log; empty: nothing to say
}

// continueFrom decides whether the attempt goes on in the session of an earlier
// one, which must be of the same backend and kept where its account sees it.
func (d *Dispatcher) continueFrom(ctx context.Context, e *agented.Execution, acc *agented.Account) (continuation, error) {
	cur := current(e)
	if cur == nil || acc == nil {
		return continuation{prompt: e.Prompt}, nil
	}
	gone := map[string]bool{}
	before, worked := 0, false
	for i := range e.Attempts {
		a := &e.Attempts[i]
		if a.SessionGone {
			gone[a.ResumedFrom] = true
		}
		if a.Number < e.AttemptNo && !a.StartedAt.IsZero() {
			before = max(before, a.Number)
			worked = worked || a.SessionID != "" && !a.SessionGone
		}
	}
	with := "attempt " + plain(e.AttemptNo) + " with account " + acc.Label()
	elsewhere := ""
	for i := len(e.Attempts) - 1; i >= 0; i-- {
		a := &e.Attempts[i]
		if a.Number >= e.AttemptNo || a.SessionID == "" || a.Backend != cur.Backend || a.SessionGone || gone[a.SessionID] {
			continue
		}
		sees, err := d.seesSession(ctx, acc, a.Account)
		if err != nil {
			return continuation{}, err
		}
		if sees {
			return continuation{session: a.SessionID, prompt: goOn, note: with + " goes on in the same session (" + a.SessionID + ")"}, nil
		}
		elsewhere = "account " + acc.Label() + " keeps its sessions in another folder"
	}
	if r := e.Snapshot.Resume; r != nil && elsewhere == "" && r.Backend == cur.Backend && r.Session != "" && !gone[r.Session] {
		sees, err := d.seesSession(ctx, acc, r.Account)
		if err != nil {
			return continuation{}, err
		}
		if sees {
			return continuation{session: r.Session, prompt: e.Prompt, note: ""}, nil
		}
		elsewhere = "account " + acc.Label() + " keeps its sessions in another folder"
	}
	c := continuation{prompt: e.Prompt}
	switch {
	case elsewhere != "":
	case len(gone) > 0:
		elsewhere = "the earlier session is gone"
	case worked:
		elsewhere = "the earlier session is another CLI's"
	}
	if before > 0 {
		c.note = with + " begins afresh"
		if elsewhere != "" {
			c.note += ": " + elsewhere
		}
	} else if e.Snapshot.Resume != nil && elsewhere != "" {
		c.note = with + " begins afresh: " + elsewhere
	}
	if worked || len(gone) > 0 {
		c.prompt += begunBefore
	}
	return c, nil
}

// seesSession reports whether an account sees the sessions that another one
// made. An account that is gone took its folder with it, unless it had none.
func (d *Dispatcher) seesSession(ctx context.Context, acc *agented.Account, maker agented.AccountID) (bool, error) {
	if maker == acc.ID || maker == "" {
		return true, nil
	}
	other, err := d.o.DB.Account(ctx, maker)
	if err != nil {
		if agented.KindOf(err) == agented.NotFound {
			return false, nil
		}
		return false, err
	}
	return other.Home() == acc.Home(), nil
}
