package api_test

import (
	"strings"
	"testing"
)

func TestLog_accepted_execution(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	line := func(request string, want ...string) {
		t.Helper()
		for l := range strings.Lines(g.log.String()) {
			if !strings.Contains(l, request) || !strings.Contains(l, "accepted") {
				continue
			}
			for _, w := range want {
				if !strings.Contains(l, w) {
					t.Errorf("%q is not in %s", w, l)
				}
			}
			return
		}
		t.Errorf("no line has %s:\n%s", request, g.log.String())
	}
	var a struct {
		ID string `json:"execution_id"`
	}
	id := g.trigger(`{"name":"agent","backend":"claude","prompt":"Say {message}"}`)
	g.admin("POST", "/api/v1/triggers/"+id+"/run", "", with("X-Request-ID", "req-by-hand")).want(202).json(&a)
	line("req-by-hand", a.ID, id)
	id = g.trigger(hookTrigger("hooked", `{"source":"webhook","auth":{"kind":"bearer","header":"X-Token"},"secret":"`+otherSecret+`","match":{"conditions":{"all":[{"field":"x","op":"equals","value":1}]}}}`))
	v := g.send(g.client(), "POST", "/hooks/"+id, `{"x":1}`, with("X-Token", otherSecret), with("X-Request-ID", "req-by-hook")).want(202).received()
	line("req-by-hook", string(v.DeliveryID), string(v.ExecutionIDs[0]))
}
