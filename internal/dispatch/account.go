package dispatch

import (
	"context"
	"maps"
	"slices"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
)

// current returns the execution's current attempt, or nil before the first.
func current(e *agented.Execution) *agented.Attempt {
	for i := range e.Attempts {
		if e.Attempts[i].Number == e.AttemptNo {
			return &e.Attempts[i]
		}
	}
	return nil
}

// backendOf returns the backend of the current attempt, which may be another than the trigger's
// first choice.
func backendOf(e *agented.Execution) string {
	if a := current(e); a != nil && a.Backend != "" {
		return a.Backend
	}
	return e.Backend
}

// specOf returns the spec of the current attempt: the execution's snapshot, adapted to the
// selected backend.
func specOf(e *agented.Execution) agented.Spec {
	spec := e.Snapshot
	a := current(e)
	if a == nil || a.Backend == "" || spec.Backend == agented.BackendCommand {
		return spec
	}
	if a.Backend != spec.Backend {
		spec.Backend, spec.Args = a.Backend, nil // arguments are specific to one CLI
		spec.Model = ""
	}
	if e.ProbeAccount == "" {
		spec.Model = a.Model
	}
	return spec
}

// accountOf returns the account of the current attempt, or nil if it needs none.
func (d *Dispatcher) accountOf(ctx context.Context, e *agented.Execution) (*agented.Account, error) {
	a := current(e)
	if a == nil || a.Account == "" {
		return nil, nil
	}
	return d.o.DB.Account(ctx, a.Account)
}

// accountEnv returns the environment variables of an account. For the default account they are
// those of the server's environment for its backend; for other accounts, their own credentials
// and folder replace them.
// received are the named secrets of the attempt.
func (d *Dispatcher) accountEnv(b agentcli.CLI, a *agented.Account, received map[string]string) (map[string]string, error) {
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
			out[name] = value // settings other than credentials, such as the API's address
		}
	}
	own, err := d.openCredentials(a.ID, a.Credentials)
	if err == nil {
		err = fillCredentials(own, a, received)
	}
	if err != nil {
		return nil, err
	}
	maps.Copy(out, own)
	if a.Config != "" {
		out[home] = a.Config
	}
	return out, nil
}

// openCredentials decrypts the stored credentials of an account. It leaves out references to named
// secrets.
func (d *Dispatcher) openCredentials(id agented.AccountID, sealed map[string]string) (map[string]string, error) {
	out := make(map[string]string, len(sealed))
	for name, value := range sealed {
		if _, ref := agented.RefersTo(value); ref {
			continue
		}
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

// accountSecrets lists the current and earlier credentials of the attempt's account.
func (d *Dispatcher) accountSecrets(ctx context.Context, e *agented.Execution) ([]string, error) {
	a, err := d.accountOf(ctx, e)
	if agented.KindOf(err) == agented.NotFound {
		return nil, nil // unreachable: an account in use cannot be deleted
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
			continue // then no process received them either
		}
		out = slices.AppendSeq(out, maps.Values(open))
	}
	return out, nil
}

// resumePrompt is the prompt that resumes an interrupted session.
const resumePrompt = "You were interrupted by an external cause (a limit, an overload, or a restart of the machine). " +
	"Continue where you were interrupted: check what is already done, do not repeat it, and finish the task."

// restartNote is appended to the prompt of an agent that starts without the session of an earlier
// attempt.
const restartNote = "\n\nNote: an earlier attempt at this task was interrupted. It worked in this same directory. " +
	"Check the existing work before you begin, and do not repeat what is already done."

// continuation describes how an attempt continues the work of earlier ones.
type continuation struct {
	session string // session to resume; empty starts a new one
	prompt  string
	note    string // log line; may be empty
}

// continueFrom decides whether the attempt resumes the session of an earlier one. The session
// must belong to the same backend and be stored where the attempt's account can read it.
func (d *Dispatcher) continueFrom(ctx context.Context, e *agented.Execution, acc *agented.Account) (continuation, error) {
	cur := current(e)
	if cur == nil || acc == nil && (cur.Backend == "" || cur.Backend == agented.BackendCommand) {
		return continuation{prompt: e.Prompt}, nil
	}
	label := "its trigger's own credentials"
	if acc == nil {
		acc = &agented.Account{Backend: cur.Backend, Default: true}
	} else {
		label = "account " + acc.Label()
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
	with := "attempt " + plain(e.AttemptNo) + " with " + label
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
			return continuation{session: a.SessionID, prompt: resumePrompt, note: with + " resumes the same session (" + a.SessionID + ")"}, nil
		}
		elsewhere = label + " stores its sessions in another folder"
	}
	if r := e.Snapshot.Resume; r != nil && elsewhere == "" && r.Backend == cur.Backend && r.Session != "" && !gone[r.Session] {
		sees, err := d.seesSession(ctx, acc, r.Account)
		if err != nil {
			return continuation{}, err
		}
		if sees {
			return continuation{session: r.Session, prompt: e.Prompt, note: ""}, nil
		}
		elsewhere = label + " stores its sessions in another folder"
	}
	c := continuation{prompt: e.Prompt}
	switch {
	case elsewhere != "":
	case len(gone) > 0:
		elsewhere = "the earlier session no longer exists"
	case worked:
		elsewhere = "the earlier session belongs to another CLI"
	}
	if before > 0 {
		c.note = with + " starts a new session"
		if elsewhere != "" {
			c.note += ": " + elsewhere
		}
	} else if e.Snapshot.Resume != nil && elsewhere != "" {
		c.note = with + " starts a new session: " + elsewhere
	}
	if worked || len(gone) > 0 {
		c.prompt += restartNote
	}
	return c, nil
}

// seesSession reports whether an account can read the sessions of another account. The folder of
// a deleted account was deleted with it, unless it had none of its own.
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
