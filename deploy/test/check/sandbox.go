package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// checkSandbox runs executions at the sandbox levels and with limits, under the hardening of the
// unit.
func checkSandbox() {
	if _, err := exec.LookPath("bwrap"); err != nil {
		fmt.Println("NOT CHECKED: THE SANDBOX LEVELS, because bubblewrap is not installed")
		return
	}
	const script = `data=${PWD%/executions/*}; [ -e "$data/agented.db" ] && echo "the database is visible"
ps -e 2>/dev/null | grep -q agented && echo "the server is visible"
echo x >file && echo x >"$TMPDIR/file" && echo x >"$HOME/sandbox-probe" && rm "$HOME/sandbox-probe" && echo fine`
	for _, level := range []string{"guard", "strict"} {
		state, text := end(beginWith("at level "+level, script, map[string]any{"sandbox": level}), time.Minute)
		report(state == "success" && strings.TrimSpace(text) == "fine", "under the hardening: sandbox level %s (%s: %s)", level, state, text)
	}
	checkMemoryLimit()
}

// checkMemoryLimit runs a command that needs more memory than its limit.
func checkMemoryLimit() {
	controllers, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err != nil || !strings.Contains(string(controllers), "memory") {
		fmt.Println("NOT CHECKED: THE LIMIT OF MEMORY, because this machine has no memory controller of cgroup v2")
		return
	}
	id := beginWith("too much memory", `x=$(head -c 300000000 /dev/zero | tr '\0' x); echo survived`, map[string]any{"limits": map[string]any{"memory": 64}})
	state, text := end(id, time.Minute)
	_, b, _ := get(fresh, "/api/v1/executions/"+id)
	report(state == "failed" && strings.Contains(string(b), "used more memory than its limit of 64 MiB") && !strings.Contains(text, "survived"),
		"an execution beyond its limit of memory ends with that sentence (%s: %s %.600s)", state, text, b)
}
