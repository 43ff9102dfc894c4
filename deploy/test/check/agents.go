package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// agent is a long-running execution.
type agent struct {
	id    string
	name  string
	pid   string
	start string // field 22 of its stat: differs for another process with the same pid
}

// begin starts a shell script as an execution. It runs outside of sandboxes: the checks examine the
// unit's own restrictions, and follow processes by the ids that scripts print. checkSandbox runs
// scripts in sandboxes.
func begin(name, script string) string { return beginWith(name, script, nil) }

// beginWith is like begin with further fields of the execution.
func beginWith(name, script string, more map[string]any) string {
	fields := map[string]any{"backend": "command", "name": name, "command": []string{"bash", "-c", script}, "sandbox": "off"}
	maps.Copy(fields, more)
	body, _ := json.Marshal(fields)
	req, _ := http.NewRequest(http.MethodPost, base+"/api/v1/executions", bytes.NewReader(body))
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	r, err := fresh.Do(req)
	if err != nil {
		report(false, "start %s: %v", name, err)
		return ""
	}
	defer r.Body.Close()
	var got struct {
		ID string `json:"execution_id"`
	}
	b, _ := io.ReadAll(r.Body)
	if err := json.Unmarshal(b, &got); err != nil || got.ID == "" {
		report(false, "start %s: %s %s", name, r.Status, b)
	}
	return got.ID
}

// end waits until an execution has ended, and returns its status and output.
func end(id string, most time.Duration) (state, text string) {
	for began := time.Now(); time.Since(began) < most; time.Sleep(50 * time.Millisecond) {
		var e struct {
			Status string `json:"status"`
		}
		_, b, err := get(fresh, "/api/v1/executions/"+id)
		if err == nil && json.Unmarshal(b, &e) == nil && e.Status != "" && e.Status != "pending" && e.Status != "running" {
			_, b, _ = get(fresh, "/api/v1/executions/"+id+"/log.txt")
			return e.Status, string(b)
		}
	}
	return "not ended", ""
}

const counting = `echo $$ > "$HOME/NAME.pid"; echo kept > "$TMPDIR/kept"; echo kept > /tmp/NAME; echo kept > /dev/shm/NAME
i=0; while [ ! -e "$HOME/enough" ]; do i=$((i+1)); echo $i; sleep 0.01; done
echo fresh > "$TMPDIR/fresh" && echo fresh > /tmp/NAME.fresh && cat "$TMPDIR/kept" /tmp/NAME /dev/shm/NAME "$TMPDIR/fresh" | tr '\n' ' '`

func startAgents(n int) []*agent {
	var out []*agent
	for i := range n {
		a := &agent{name: fmt.Sprintf("counter-%d", i)}
		_ = os.Remove(filepath.Join(home, a.name+".pid")) // from an earlier one
		a.id = begin(a.name, strings.ReplaceAll(counting, "NAME", a.name))
		out = append(out, a)
	}
	for _, a := range out {
		for range 200 {
			b, _ := os.ReadFile(filepath.Join(home, a.name+".pid"))
			if a.pid = strings.TrimSpace(string(b)); a.pid != "" {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		a.start = startTime(a.pid)
		report(a.start != "", "agent %s runs as process %s", a.name, a.pid)
	}
	return out
}

func startTime(pid string) string {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil || pid == "" {
		return ""
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	return f[19]
}

// same reports whether all agents are still the same processes.
func same(agents []*agent) bool {
	return !slices.ContainsFunc(agents, func(a *agent) bool { return startTime(a.pid) != a.start })
}
