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

// querySystemd runs systemctl; it is the default of Options.Systemctl.
func querySystemd(ctx context.Context, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return exec.CommandContext(ctx, "systemctl", args...).Output()
}

// unitProperties are the properties of a unit that are read from systemd.
var unitProperties = []string{
	"LoadState", "ActiveState", "FragmentPath", "NeedDaemonReload", "KillMode", "Delegate", "NotifyAccess",
	"Type", "FileDescriptorStoreMax", "TimeoutStopUSec", "Restart", "Listen",
}

// properties reads the properties of a unit; it returns nil if systemd does not know the unit.
func properties(ctx context.Context, o Options, unit string, user bool) map[string]string {
	ask := o.Systemctl
	if ask == nil {
		ask = querySystemd
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

// stopReserve is the time beyond the drain time that the stop timeout must include.
const stopReserve = 10 * time.Second

// checkUnit checks the unit of the service. unit is the unit of the running server; if it is
// empty, the unit that `service install` writes is checked if it is installed.
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
	fix := func(key, value string) string {
		if own {
			return fmt.Sprintf("remove %s from your drop-in (`%s edit %s`), or write the unit again: `%s`", key, systemctl, unit, install)
		}
		return fmt.Sprintf("set %s=%s in the [Service] section of %s, then `%s daemon-reload` and restart it", key, value, unit, systemctl)
	}
	var out []Finding
	add := func(id, name string, status Status, text, fix string) {
		out = append(out, Finding{ID: "system.unit." + id, Area: AreaSystem, Name: name, Status: status, Text: text, Fix: fix})
	}
	if mode := p["KillMode"]; mode != "process" {
		add("killmode", "KillMode", Fail, fmt.Sprintf("%s has KillMode=%s: each restart kills the running agents", unit, mode), fix("KillMode", "process"))
	}
	if d := p["Delegate"]; d == "no" || d == "" {
		add("delegate", "Delegate", Warn, unit+" does not delegate its control group: leftover processes of an attempt are found by its process tree, which is less reliable", fix("Delegate", "yes"))
	}
	if t := p["Type"]; t != "notify" && t != "notify-reload" {
		add("type", "Type", Warn, fmt.Sprintf("%s has Type=%s: a start returns before the server is ready, and there is no watchdog", unit, t), fix("Type", "notify"))
	}
	if a := p["NotifyAccess"]; a != "main" && a != "all" && a != "exec" {
		add("notifyaccess", "NotifyAccess", Fail, fmt.Sprintf("%s has NotifyAccess=%s: systemd ignores the server's notifications, so the start never completes", unit, a), fix("NotifyAccess", "main"))
	}
	if n, err := strconv.Atoi(p["FileDescriptorStoreMax"]); err == nil && n == 0 {
		add("fdstore", "FileDescriptorStoreMax", Warn, unit+" does not keep the listening socket: connections are refused while the server restarts", fix("FileDescriptorStoreMax", "16"))
	}
	if r := p["Restart"]; r != "always" && r != "on-failure" && r != "on-abnormal" {
		add("restart", "Restart", Warn, fmt.Sprintf("%s has Restart=%s: the server is not restarted after a crash", unit, r), fix("Restart", "always"))
	}
	if limit, ok := timespan(p["TimeoutStopUSec"]); ok && o.Config != nil && o.ConfigErr == nil && limit < o.Config.Shutdown+stopReserve {
		want := o.Config.Shutdown + stopReserve
		text := fmt.Sprintf("%s is killed after %s, but open requests may need %s (AGENTED_SHUTDOWN_TIMEOUT) and the shutdown ten seconds more", unit, limit, o.Config.Shutdown)
		m := fmt.Sprintf("write the unit again: `%s`", install)
		if !own {
			m = fix("TimeoutStopSec", fmt.Sprintf("%ds", int(want.Seconds())))
		}
		add("timeoutstop", "TimeoutStopSec", Fail, text, m)
	}
	if p["NeedDaemonReload"] == "yes" {
		add("reload", "daemon-reload", Warn, "the file of "+unit+" has changed, but systemd still uses the old version", systemctl+" daemon-reload")
	}
	if own {
		if missing := outdated(filepath.Join(o.Root, p["FragmentPath"]), user); len(missing) > 0 {
			add("version", "unit file", Warn, fmt.Sprintf("%s was written by another version: it lacks %s", p["FragmentPath"], list(missing, 3)), install)
		}
		out = append(out, checkSocketUnit(ctx, o, user, install)...)
	}
	if len(out) == 0 {
		add("ok", "service", OK, unit+" keeps agents running over restarts, and restarts the server after a crash", "")
	}
	return out
}

// list formats the first n items and the number of the others.
func list(items []string, n int) string {
	text := strings.Join(items[:min(n, len(items))], ", ")
	if more := len(items) - n; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// perInstall are the keys whose values depend on the installation.
var perInstall = []string{"ExecStart", "User", "Group", "WorkingDirectory", "Environment", "UMask", "StateDirectory", "TimeoutStopSec", "WantedBy", "Requires", "After", "Wants", "Sockets", "Also"}

// outdated returns the lines of this version's unit that the installed one lacks.
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

// checkSocketUnit compares the listen address of the socket unit with the setting.
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
		Fix:  install + " --socket",
	}}
}

// timespan parses a duration in the format of systemctl show: "40s", "1min 30s".
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
