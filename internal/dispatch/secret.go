package dispatch

import (
	"context"
	"maps"
	"slices"

	"github.com/agented/agented"
)

// Vault provides the values of named secrets.
type Vault interface {
	// Resolve fetches the values of secrets for the current attempt of an execution, and records
	// them as received.
	Resolve(ctx context.Context, e *agented.Execution, names []string) error
	// Received returns the values that an attempt received, by name.
	Received(ctx context.Context, id agented.ExecutionID, attempt int) (map[string]string, error)
	// ReceivedByAll returns the values that all attempts of an execution received.
	ReceivedByAll(ctx context.Context, id agented.ExecutionID) ([]string, error)
}

// receiveSecrets fetches the named secrets that the current attempt uses: those of its variables,
// its workspace and its account. They are fetched for each attempt, so that the next one receives a
// changed value.
func (d *Dispatcher) receiveSecrets(ctx context.Context, e *agented.Execution) (map[string]string, error) {
	names := slices.Collect(maps.Values(e.Snapshot.SecretRefs()))
	account, err := d.accountOf(ctx, e)
	if err != nil {
		return nil, err
	}
	if account != nil {
		names = slices.AppendSeq(names, maps.Values(account.SecretRefs()))
	}
	if len(names) == 0 {
		return nil, nil
	}
	if d.o.Vault == nil {
		return nil, missingSecret(names[0])
	}
	if err := d.o.Vault.Resolve(ctx, e, names); err != nil {
		return nil, err
	}
	return d.o.Vault.Received(ctx, e.ID, e.AttemptNo)
}

// receivedByAll returns the values of named secrets that an execution may print: those that its
// attempts received.
func (d *Dispatcher) receivedByAll(ctx context.Context, e *agented.Execution) ([]string, error) {
	own := func(a agented.Attempt) bool { return a.Account != "" && a.Account != agented.DefaultAccount(a.Backend) }
	if d.o.Vault == nil || len(e.Snapshot.SecretRefs()) == 0 && !slices.ContainsFunc(e.Attempts, own) {
		return nil, nil
	}
	return d.o.Vault.ReceivedByAll(ctx, e.ID)
}

// missingSecret is the error of an attempt that has not received a secret that it refers to, for
// example because its account was changed while it started.
func missingSecret(name string) error {
	return agented.Errorf(agented.Conflict, "secret %q was not available when the attempt started: retry the execution", name)
}

// ownValues returns the variables without references to named secrets.
func ownValues(env map[string]*string) map[string]*string {
	if len(env) == 0 {
		return env
	}
	out := make(map[string]*string, len(env))
	for name, value := range env {
		if value == nil {
			out[name] = nil
		} else if _, ref := agented.RefersTo(*value); !ref {
			out[name] = value
		}
	}
	return out
}

// fillCredentials adds the named secrets that an account refers to.
func fillCredentials(into map[string]string, a *agented.Account, received map[string]string) error {
	for variable, value := range a.Credentials {
		if name, ref := agented.RefersTo(value); ref {
			text, ok := received[name]
			if !ok {
				return missingSecret(name)
			}
			into[variable] = text
		}
	}
	return nil
}
