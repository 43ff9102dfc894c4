package policy

import (
	"testing"

	"github.com/agented/agented"
)

func TestShowsUse(t *testing.T) {
	t.Parallel()
	const failed, timeout, cancelled = agented.StateFailed, agented.StateTimeout, agented.StateCancelled
	for _, c := range []struct {
		name         string
		end          AttemptEnd
		shows, works bool
		reason       string
	}{
		{"success", AttemptEnd{State: agented.StateSuccess, Responded: true}, true, true, ""},
		{"the CLI exits with an error before the model responds", AttemptEnd{State: failed, Class: agented.ClassAgentFailure, Responded: true, Reason: "exited with code 1"}, true, false, "exited with code 1"},
		{"the task fails", AttemptEnd{State: failed, Class: agented.ClassAgentFailure, Responded: true, Used: true}, true, true, ""},
		{"the outcome contract is not met", AttemptEnd{State: failed, Class: agented.ClassNoEffect, Used: true}, true, true, ""},
		{"credentials are rejected", AttemptEnd{State: failed, Class: agented.ClassAuth, Used: true, Reason: "failed", Evidence: "401"}, true, false, "401"},
		{"a network fault", AttemptEnd{State: failed, Class: agented.ClassNetwork, Reason: "no route"}, true, false, "no route"},
		{"a task reaches its time limit", AttemptEnd{State: timeout, Responded: true, Reason: "limit"}, false, false, ""},
		{"a test reaches its time limit", AttemptEnd{State: timeout, Responded: true, Tests: true, Reason: "limit"}, true, false, "limit"},
		{"a test is cancelled", AttemptEnd{State: cancelled, Tests: true, Reason: "cancelled"}, false, false, ""},
		{"a crash of the server", AttemptEnd{State: agented.StateInterrupted, Class: agented.ClassInterrupted, Tests: true}, false, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if shows, works, reason := ShowsUse(c.end); shows != c.shows || works != c.works || reason != c.reason {
				t.Errorf("%v, %v, %q; want %v, %v, %q", shows, works, reason, c.shows, c.works, c.reason)
			}
		})
	}
}
