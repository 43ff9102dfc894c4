package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented/internal/config"
)

// built is a time before this program was built: a clock before it is wrong.
var built = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// fewFiles is the limit of open files below which a busy server runs out of descriptors: each
// client of a stream needs one, an attempt about five.
const fewFiles = 4096

// checkSystem checks the resources that the machine grants a server.
func checkSystem(ctx context.Context, o Options, holder int) []Finding {
	out := []Finding{checkFiles(), checkClock(o), checkZones(o), checkUser(o, holder)}
	if o.Root == "" {
		out = append(out, checkSandbox(ctx, o))
	}
	return append(out, checkPlatform(ctx, o, holder)...)
}

func checkFiles() Finding {
	f := Finding{Area: AreaSystem, Name: "open files", Status: OK}
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		f.Status, f.Text, f.Fix = Warn, "the limit cannot be read: "+err.Error(), "ulimit -Hn"
		return f
	}
	// A server raises its limit to the hard limit.
	limit := uint64(l.Max)
	f.Text = fmt.Sprintf("at most %d, enough for %d connections", limit, config.DefaultMaxConnections(limit))
	if limit > 1<<40 {
		f.Text = "no limit"
	}
	if limit < fewFiles {
		f.Status = Warn
		f.Fix = "raise the hard limit: LimitNOFILE=65536 in the service file, or /etc/security/limits.conf"
	}
	return f
}

func checkClock(o Options) Finding {
	f := Finding{Area: AreaSystem, Name: "clock", Status: OK}
	now := o.Now()
	zone := time.Local
	if o.Config != nil && o.Config.Zone != nil {
		zone = o.Config.Zone
	}
	name, offset := now.In(zone).Zone()
	if zone != time.Local {
		name = zone.String()
	}
	f.Text = fmt.Sprintf("%s; schedules without a zone use %s (UTC%+03d:%02d)",
		now.UTC().Format("2006-01-02 15:04 MST"), name, offset/3600, abs(offset)/60%60)
	switch {
	case now.Before(built):
		f.Status, f.Text = Fail, "the clock shows "+now.UTC().Format("2006-01-02")+", which is in the past: schedules, sessions and certificates will fail"
		f.Fix = "sudo timedatectl set-ntp true"
	case o.Config != nil && future(o.Config, now) > time.Minute:
		f.Status = Fail
		f.Text += fmt.Sprintf("; the clock was set back: the database was last written %s in the future, so schedules repeat or wait", future(o.Config, now).Round(time.Second))
		f.Fix = "sudo timedatectl set-ntp true, then restart the server"
	case !synchronised():
		f.Status, f.Text = Warn, f.Text+"; the kernel reports that the clock is not synchronised"
		f.Fix = "sudo timedatectl set-ntp true"
	}
	return f
}

// future returns how far in the future the database or its log was written.
func future(c *config.Config, now time.Time) time.Duration {
	var ahead time.Duration
	for _, path := range []string{c.DBPath, c.DBPath + "-wal"} {
		if info, err := os.Stat(path); err == nil {
			ahead = max(ahead, info.ModTime().Sub(now))
		}
	}
	return ahead
}

// checkZones reports the source of the time zones. The program contains its own, which may be
// older than the machine's.
func checkZones(o Options) Finding {
	f := Finding{Area: AreaSystem, Name: "time zones", Status: OK, Text: "built into the program, because this machine has none"}
	for _, dir := range []string{"/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo"} {
		if _, err := os.Stat(filepath.Join(o.Root, dir, "Etc/UTC")); err == nil {
			f.Text = "from " + dir
			break
		}
	}
	return f
}

// checkUser checks whether the server, and therefore every agent, runs as root.
func checkUser(o Options, holder int) Finding {
	f := Finding{Area: AreaSystem, Name: "user", Status: OK}
	uid, who := os.Geteuid(), "a server that you start"
	if holder > 0 {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(o.Root, "/proc", strconv.Itoa(holder)), &st) == nil {
			uid, who = int(st.Uid), "the server"
		}
	}
	f.Text = fmt.Sprintf("%s runs as user %d", who, uid)
	if uid == 0 {
		f.Status, f.Text = Warn, who+" runs as root, and so does every agent, so an agent can damage the whole machine"
		f.Fix = "run `sudo agented service install`, which creates an account for the server"
	}
	return f
}

func abs(n int) int { return max(n, -n) }

// number reads a file under /proc or /sys that contains one number.
func number(root, path string) (int64, bool) {
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n, err == nil
}
