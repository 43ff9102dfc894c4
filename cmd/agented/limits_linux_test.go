package main_test

import (
	"strings"
	"testing"
)

// TestLimits_of_execution sets limits on every way that there is. The weight of the processors holds
// with and without control groups: the processes get a smaller share, or a lower priority.
func TestLimits_of_execution(t *testing.T) {
	t.Parallel()
	s := newServer(t, "AGENTED_CPU_WEIGHT=50")
	body := map[string]any{
		"name": "limited", "backend": "command", "command": []string{"sh", "-c", `until [ "$(nice)" = 19 ] || grep -qsx 1 /sys/fs/cgroup/$(sed -n s/^0:://p /proc/self/cgroup)/cpu.weight; do sleep 0.02; done; echo limited`},
		"limits": map[string]any{"memory": 2048, "swap": 10, "pids": 500, "cpu_weight": 1}, "timeout_seconds": 60,
	}
	id := s.trigger(body)
	var got struct{ Limits map[string]int }
	s.call("GET", "/api/v1/triggers/"+id, nil, &got)
	if got.Limits["memory"] != 2048 || got.Limits["swap"] != 10 || got.Limits["pids"] != 500 || got.Limits["cpu_weight"] != 1 {
		t.Errorf("the trigger has %v", got.Limits)
	}
	if e := s.await(s.fire(id)); e.Status != "success" {
		t.Errorf("%+v\n%s", e, s.logText(e.ID))
	}
	s.call("PATCH", "/api/v1/triggers/"+id, map[string]any{"limits": nil}, &got)
	got.Limits = nil
	if s.call("GET", "/api/v1/triggers/"+id, nil, &got); len(got.Limits) != 0 {
		t.Errorf("after null it has %v", got.Limits)
	}
	if _, err := s.try("PATCH", "/api/v1/triggers/"+id, map[string]any{"limits": map[string]any{"memory": -1}}, &struct{}{}); err == nil || !strings.Contains(err.Error(), "limits.memory") {
		t.Errorf("a limit below 0: %v", err)
	}
	command := body["command"].([]string)
	for limit, want := range map[string]string{"memory=lots": "--limit memory=lots: use a whole number", "wind=1": "--limit wind is unknown"} {
		if _, stderr, code := s.cli("run", "--limit", limit, "--", "true"); code != 2 || !strings.Contains(stderr, want) || strings.Contains(stderr, "strconv") {
			t.Errorf("%s: %d %s", limit, code, stderr)
		}
	}
	if stdout, stderr, code := s.cli(append([]string{"run", "--timeout", "60s", "--limit", "cpu_weight=1,memory=1000", "--"}, command...)...); code != 0 {
		t.Errorf("run --limit: %d\n%s%s", code, stdout, stderr)
	}
	if _, stderr, code := s.cli("run", "--limit", "speed=1", "--", "true"); code == 0 || !strings.Contains(stderr, "speed") {
		t.Errorf("an unknown limit: %d %s", code, stderr)
	}
	var agent struct{ Limits map[string]int }
	s.call("POST", "/api/v1/agents", map[string]any{"name": "ann", "backend": "claude", "limits": map[string]any{"pids": 7}}, &agent)
	if agent.Limits["pids"] != 7 {
		t.Errorf("the agent has %v", agent.Limits)
	}
}
