package doctor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented/internal/service"
)

// askSystemd runs systemctl; it is nil's place in Options.Systemctl.
func askSystemd(ctx context.Context, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return exec.CommandContext(ctx, "systemctl", args...).Output()
}

// unitProperties are what systemd is asked about a unit.
var unitProperties = []string{
	"LoadState", "ActiveState", "FragmentPath", "NeedDaemonReload", "KillMode", "Delegate", "NotifyAccess",
	"Type", "FileDescriptorStoreMax", "TimeoutStopUSec", "Restart", "Listen",
}

// properties asks systemd about a unit; nil if it does not know it.
func properties(ctx context.Context, o Options, unit string, user bool) map[string]string {
	ask := o.Systemctl
	if ask == nil {
		ask = askSystemd
	}
	args := []string{"show", "--property=" + strings.Join(unitProperties, ","), "--", unit}
	if user {
		args = append([]string{"--user"}, args...)
	}
	out, err := ask(ctx, args...)
	if err != nil {
		return nil
	}
	p := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			p[name] = value
		}
	}
	if p["LoadState"] != "loaded" {
		return nil
	}
	return p
}

// stopReserve is what a supervisor allows beyond the drain time.
const stopReserve = 10 * time.Second

// checkUnit asks systemd how it treats the service. unit is what the running
// server belongs to, or empty: then the unit that `service install` writes is
// looked at, if it is there.
func checkUnit(ctx context.Context, o Options, unit string, user bool) []Finding {
	var p map[string]string
	if unit != "" {
		p = properties(ctx, o, unit, user)
	} else {
		unit = "agented.service"
		for _, user = range []bool{false, true} {
			if p = properties(ctx, o, unit, user); p != nil {
				break
			}
		}
	}
	if p == nil {
		return nil
	}
	systemctl, install := "sudo systemctl", "sudo agented service install"
	if user {
		systemctl, install = "systemctl --user", "agented service install --user"
	}
	own := unit == "agented.service"
	mend := func(key, value string) string {
		if own {
			return fmt.Sprintf("remove %s from your drop-in (`%s edit %s`), or write the unit anew: `%s`", key, systemctl, unit, install)
		}
		return fmt.Sprintf("set %s=%s in the [Service] section of %s, then `%s daemon-reload` and restart it", key, value, unit, systemctl)
	}
	var out []Finding
	add := func(id, name string, status Status, text, mend string) {
		out = append(out, Finding{ID: "system.unit." + id, Area: AreaSystem, Name: name, Status: status, Text: text, Mend: mend})
	}
	if mode := p["KillMode"]; mode != "process" {
		add("killmode", "KillMode", Fail, fmt.Sprintf("%s has KillMode=%s: each restart ends the agents that run", unit, mode), mend("KillMode", "process"))
	}
	if d := p["Delegate"]; d == "no" || d == "" {
		add("delegate", "Delegate", Warn, unit+" does not hand its control group over: what an attempt leaves behind is found by its process tree, which is less sure", mend("Delegate", "yes"))
	}
	if t := p["Type"]; t != "notify" && t != "notify-reload" {
		add("type", "Type", Warn, fmt.Sprintf("%s has Type=%s: a start returns before the server answers, and nothing watches it", unit, t), mend("Type", "notify"))
	}
	if a := p["NotifyAccess"]; a != "main" && a != "all" && a != "exec" {
		add("notifyaccess", "NotifyAccess", Fail, fmt.Sprintf("%s has NotifyAccess=%s: what the server says about itself is not heard, and the start never ends", unit, a), mend("NotifyAccess", "main"))
	}
	if n, err := strconv.Atoi(p["FileDescriptorStoreMax"]); err == nil && n == 0 {
		add("fdstore", "FileDescriptorStoreMax", Warn, unit+" keeps no socket: connections are refused while the server restarts", mend("FileDescriptorStoreMax", "16"))
	}
	if r := p["Restart"]; r != "always" && r != "on-failure" && r != "on-abnormal" {
		add("restart", "Restart", Warn, fmt.Sprintf("%s has Restart=%s: a server that dies stays down", unit, r), mend("Restart", "always"))
	}
	if limit, ok := timespan(p["TimeoutStopUSec"]); ok && o.Config != nil && o.ConfigErr == nil && limit < o.Config.Shutdown+stopReserve {
		want := o.Config.Shutdown + stopReserve
		text := fmt.Sprintf("%s is stopped by force after %s, but open requests may take %s (AGENTED_SHUTDOWN_TIMEOUT) and the rest ten seconds", unit, limit, o.Config.Shutdown)
		m := fmt.Sprintf("write the unit anew: `%s`", install)
		if !own {
			m = mend("TimeoutStopSec", fmt.Sprintf("%ds", int(want.Seconds())))
		}
		add("timeoutstop", "TimeoutStopSec", Fail, text, m)
	}
	if p["NeedDaemonReload"] == "yes" {
		add("reload", "daemon-reload", Warn, "the file of "+unit+" has changed and systemd still goes by the old one", systemctl+" daemon-reload")
	}
	if own {
		if missing := outdated(filepath.Join(o.Root, p["FragmentPath"]), user); len(missing) > 0 {
			add("version", "unit file", Warn, fmt.Sprintf("%s was written by another version: it lacks %s", p["FragmentPath"], list(missing, 3)), install)
		}
		out = append(out, checkSocketUnit(ctx, o, user, install)...)
	}
	if len(out) == 0 {
		add("ok", "service", OK, unit+" leaves running agents alone when it is restarted, and comes back", "")
	}
	return out
}

// list names the first n and says how many more there are.
func list(items []string, n int) string {
	text := strings.Join(items[:min(n, len(items))], ", ")
	if more := len(items) - n; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// perInstall are keys whose value depends on where a service was installed.
var perInstall = []string{"ExecStart", "User", "Group", "WorkingDirectory", "Environment", "StateDirectory", "TimeoutStopSec", "WantedBy", "Requires", "After", "Wants", "Sockets", "Also"}

// outdated lists the lines that this version's unit has and the installed one
// lacks.
func outdated(path string, user bool) []string {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	spec := service.System(service.Systemd)
	if user {
		spec = service.User(service.Systemd, "/home/user", "/usr/local/bin/agented")
	}
	spec.Socket = strings.Contains(string(text), "agented.socket")
	there := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		there[strings.TrimSpace(line)] = true
	}
	var missing []string
	for line := range strings.Lines(spec.Unit()) {
		line = strings.TrimSpace(line)
		key, _, ok := strings.Cut(line, "=")
		if ok && !strings.HasPrefix(line, "#") && !slices.Contains(perInstall, key) && !there[line] {
			missing = append(missing, line)
		}
	}
	return missing
}

// checkSocketUnit compares what the socket unit listens on with the setting.
func checkSocketUnit(ctx context.Context, o Options, user bool, install string) []Finding {
	p := properties(ctx, o, "agented.socket", user)
	if p == nil || o.Config == nil || o.ConfigErr != nil || p["Listen"] == "" {
		return nil
	}
	want := o.Config.Bind.Path
	if o.Config.Bind.Network != "unix" {
		want = fmt.Sprintf(":%d", o.Config.Bind.Port)
	}
	listens, _, _ := strings.Cut(p["Listen"], " ")
	if strings.HasSuffix(listens, want) || ":"+listens == want {
		return nil
	}
	return []Finding{{
		ID: "system.unit.socket", Area: AreaSystem, Name: "agented.socket", Status: Warn,
		Text: fmt.Sprintf("systemd listens on %s for the server, but AGENTED_BIND is %s", listens, o.Config.Bind),
		Mend: install + " --socket",
	}}
}

// timespan reads a duration as systemctl show writes it: "40s", "1min 30s".
func timespan(text string) (time.Duration, bool) {
	if text == "infinity" {
		return 1<<63 - 1, true
	}
	units := map[string]time.Duration{
		"us": time.Microsecond, "ms": time.Millisecond, "s": time.Second, "min": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour,
	}
	var sum time.Duration
	words := strings.Fields(text)
	for _, w := range words {
		at := strings.IndexFunc(w, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
		if at < 1 {
			return 0, false
		}
		n, err := strconv.ParseFloat(w[:at], 64)
		unit, known := units[w[at:]]
		if err != nil || !known {
			return 0, false
		}
		sum += time.Duration(n * float64(unit))
	}
	return sum, len(words) > 0
}
