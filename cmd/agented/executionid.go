package main

import (
	"context"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
)

// lastExecution refers to the newest execution.
const lastExecution = "@last"

// maxPrefixed is how many of the newest executions are searched for an id prefix.
const maxPrefixed = 2000

// executionID resolves a reference to an execution: a complete id, a prefix that is unique among
// the newest executions, or @last.
func executionID(ctx context.Context, c *client.Client, ref string) (string, error) {
	prefix := ref
	if !strings.HasPrefix(ref, "exec-") {
		prefix = "exec-" + ref
	}
	switch {
	case agented.ValidID("exec", ref):
		return ref, nil
	case ref != lastExecution && (len(prefix) < len("exec-")+4 || strings.Trim(prefix[5:], "0123456789abcdefghijklmnopqrstuvwxyz") != ""):
		return ref, nil // the server reports what is wrong with it
	}
	var found []string
	for e, err := range c.Executions(ctx, client.ExecutionQuery{}, maxPrefixed) {
		if err != nil {
			return "", err
		}
		if ref == lastExecution {
			return e.Value.ID, nil
		}
		if strings.HasPrefix(e.Value.ID, prefix) {
			if found = append(found, e.Value.ID); len(found) > 1 {
				break
			}
		}
	}
	switch {
	case len(found) > 1:
		return "", agented.Errorf(agented.Invalid, "several executions begin with %q, among them %s and %s: use more characters of the id", ref, found[0], found[1])
	case len(found) == 1:
		return found[0], nil
	case ref == lastExecution:
		return "", agented.Errorf(agented.NotFound, "there are no executions yet")
	}
	return "", agented.Errorf(agented.NotFound, "none of the newest %d executions has an id that begins with %q: run `agented execution list`, or use the complete id", maxPrefixed, prefix)
}

// accountNames returns a function that maps the account ids of an execution's attempts to labels.
// An account that cannot be found keeps its id.
func accountNames(ctx context.Context, c *client.Client, e *client.Execution) func(id string) string {
	labels := map[string]string{}
	for _, a := range e.Attempts {
		if a.Account == "" || len(labels) > 0 {
			continue
		}
		for row, err := range c.Accounts(ctx, 0) {
			if err == nil {
				labels[row.Value.ID] = row.Value.Label
			}
		}
	}
	return func(id string) string {
		if l := labels[id]; l != "" {
			return l
		}
		return id
	}
}
