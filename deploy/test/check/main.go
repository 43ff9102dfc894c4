// Command check installs Agented as a service on the machine that it runs on, injects faults and
// reports the results. It is meant for a disposable machine, which run.sh creates.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	base = "http://127.0.0.1:20000"
	home = "/var/lib/agented"
	data = home + "/data"
	clis = "/opt/agented-clis" // where run.sh mounts the real ones
)

// failures counts failed checks.
var failures int

func report(ok bool, format string, args ...any) {
	word := "ok  "
	if !ok {
		word = "FAIL"
		failures++
	}
	fmt.Printf("%s %s\n", word, fmt.Sprintf(format, args...))
}

// run returns the output of a program.
func run(args ...string) (string, error) {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// must is like run for steps that everything else depends on.
func must(args ...string) string {
	out, err := run(args...)
	if err != nil {
		fmt.Printf("FAIL %s: %v\n%s\n", strings.Join(args, " "), err, out)
		journal()
		os.Exit(1)
	}
	return out
}

var key string

// fresh opens a connection for each request.
var fresh = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func get(c *http.Client, path string) (int, []byte, error) {
	req, err := http.NewRequest(http.MethodGet, base+path, nil)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	r, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return r.StatusCode, b, err
}

func ms(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

func checkUnit() {
	out, err := run("systemd-analyze", "verify", "/etc/systemd/system/agented.service")
	clean := err == nil
	for line := range strings.Lines(out) {
		known := strings.Contains(line, "RestartSteps") || strings.Contains(line, "RestartMaxDelaySec") || strings.Contains(line, "DelegateSubgroup")
		if strings.Contains(line, "agented") && !(known && strings.Contains(line, "Unknown key")) {
			clean = false
			fmt.Print("     ", line)
		}
	}
	report(clean, "systemd-analyze verify (besides keys that only newer ones know)")
	out, _ = run("systemd-analyze", "security", "--no-pager", "agented.service")
	at := strings.LastIndex(out, "exposure level for agented.service: ")
	var level float64
	if at >= 0 {
		_, _ = fmt.Sscan(out[at+len("exposure level for agented.service: "):], &level)
	}
	report(at >= 0 && level <= 3.0, "exposure level %.1f, at most 3.0", level)
}

func checkTools() {
	scripts := map[string]string{
		"node": `command -v node >/dev/null || { echo absent; exit; }
node -e 'const os=require("os"),fs=require("fs"),cp=require("child_process");os.networkInterfaces();os.freemem();os.loadavg();
let f=0;for(let i=0;i<3e7;i++)f+=i%7;const m=new WebAssembly.Module(new Uint8Array([0,97,115,109,1,0,0,0]));
fs.writeFileSync(os.tmpdir()+"/x","y");if(cp.execFileSync("sh",["-c","echo hi"]).toString()!="hi\n")throw 1;console.log("fine")'`,
		"git": `command -v git >/dev/null || { echo absent; exit; }
set -e; cd "$(mktemp -d)"; git init -q a; cd a; git config user.email a@b; git config user.name a; echo x > f; git add f; git commit -qm x
cd ..; git clone -q a b; git -C b log --oneline | wc -l | grep -q '^1$'; git -C b worktree add -q ../c; test -e c/f; echo fine`,
		"bwrap": `command -v bwrap >/dev/null || { echo absent; exit; }
bwrap --ro-bind / / --unshare-all --proc /proc --dev /dev --tmpfs /tmp true && echo fine`,
		"scripts in /tmp":             `f=$(mktemp /tmp/XXXXXX); printf '#!/bin/sh\necho fine\n' > $f; chmod +x $f; $f`,
		"no supervisor's variables":   `env | grep -E '^(NOTIFY_SOCKET|LISTEN_|WATCHDOG_|INVOCATION_ID|SECRET_KEY|FDSTORE)' || echo fine`,
		"nothing outside is writable": `for d in /etc /usr /var/log / /opt; do touch $d/agented-probe 2>/dev/null && { echo $d is writable; exit 1; }; done; echo fine`,
		"no new privileges":           `grep -q 'NoNewPrivs:.1' /proc/self/status && echo fine`,
		"a clone, tests and a push": `command -v git >/dev/null && command -v node >/dev/null || { echo absent; exit; }
set -e; cd "$TMPDIR"; git init -q --bare o; git clone -q o w 2>/dev/null; cd w; git config user.email a@b; git config user.name a
printf 'require("assert").equal(1,1)' > t.js; node --test t.js >/dev/null; git add .; git commit -qm x; git push -q origin HEAD; git -C ../o log --all --oneline | grep -q x; echo fine`,
	}
	for _, cli := range []string{"claude", "codex", "gemini", "opencode"} {
		scripts["the CLI "+cli] = fmt.Sprintf(`p=%s/%s/node_modules/.bin/%[2]s; [ -x "$p" ] || { echo absent; exit; }; v=$("$p" --version 2>&1); echo "$v"; echo "$v" | grep -q '[0-9][.][0-9]' && echo fine`, clis, cli)
	}
	for name, script := range scripts {
		state, text := end(begin(name, script), time.Minute)
		last := text[strings.LastIndex(strings.TrimSpace(text), "\n")+1:]
		switch last = strings.TrimSpace(last); {
		case last == "absent":
			fmt.Printf("SKIP %s is not on this machine, so it was not tried\n", name)
		default:
			report(state == "success" && last == "fine", "under the hardening: %s (%s: %s)", name, state, text)
		}
	}
	checkSandbox()
}

func checkShimEnvironment(a *agent) {
	stat, _ := os.ReadFile("/proc/" + a.pid + "/stat")
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	env, err := os.ReadFile("/proc/" + f[1] + "/environ")
	report(err == nil && !bytes.Contains(env, []byte("NOTIFY_SOCKET")) && !bytes.Contains(env, []byte("LISTEN_")),
		"the supervisor of an agent has %q (%v)", bytes.ReplaceAll(env, []byte{0}, []byte{' '}), err)
	group, _ := os.ReadFile("/proc/" + a.pid + "/cgroup")
	report(bytes.Contains(group, []byte("agshim-")), "an agent has a control group of its own: %s", lastLine(string(group)))
}

// checkSlowRequest restarts the server during a request of 29 s, one less than the drain time,
// such as a download of a log over a slow connection.
func checkSlowRequest(agents []*agent) {
	const size = 16 << 20 // far more than the buffers of the connection
	id := begin("a long log", fmt.Sprintf("yes 012345678901234567890123456789012345678901234567890123456789012 | head -c %d", size))
	for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(100 * time.Millisecond) {
		if _, b, err := get(fresh, "/api/v1/executions/"+id); err == nil && bytes.Contains(b, []byte(`"success"`)) {
			break
		}
	}
	req, _ := http.NewRequest(http.MethodGet, base+"/api/v1/executions/"+id+"/log.txt", nil)
	req.Header.Set("Authorization", "Bearer "+key)
	r, err := (&http.Client{Transport: &http.Transport{
		DisableCompression: true,
		// Small kernel buffers make the server write until the end.
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err == nil {
				err = conn.(*net.TCPConn).SetReadBuffer(32 << 10)
			}
			return conn, err
		},
	}}).Do(req)
	if err != nil {
		report(false, "a request of 29 s over a restart: %v", err)
		return
	}
	defer r.Body.Close()
	began := time.Now()
	took := make(chan time.Duration, 1)
	go func() {
		must("systemctl", "restart", "agented")
		took <- time.Since(began)
	}()
	var got int64
	for err == nil && got < size {
		time.Sleep(time.Duration(float64(28*time.Second)*float64(got)/size) - time.Since(began))
		var n int64
		n, err = io.CopyN(io.Discard, r.Body, min(128<<10, size-got))
		got += n
	}
	report(err == nil && same(agents), "a request of %s over a restart, which took %s: %d of %d bytes (%v)",
		time.Since(began).Round(100*time.Millisecond), ms(<-took), got, size, err)
}

// checkUserService does the same on a smaller scale for a service of one user.
func checkUserService(source string) {
	const who, theirs = "ann", "/home/ann"
	must("useradd", "--create-home", who)
	uid := must("id", "-u", who)
	// Normally started by a login.
	_, _ = run("systemctl", "start", "dbus.service", "systemd-logind.service")
	dropIn := "/etc/systemd/system/user@.service.d/check.conf"
	_ = os.MkdirAll(filepath.Dir(dropIn), 0o755)
	_ = os.WriteFile(dropIn, []byte("[Service]\nEnvironment=XDG_RUNTIME_DIR=/run/user/%i\n"), 0o644)
	must("systemctl", "daemon-reload")
	out, err := run("systemctl", "start", "user@"+uid+".service")
	manager := "/run/user/" + uid + "/systemd/private"
	for range 150 {
		if _, serr := os.Stat(manager); serr == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if _, serr := os.Stat(manager); serr != nil {
		fmt.Printf("SKIP the service of a user: this machine does not start a manager for one (%v: %s)\n", err, out)
		return
	}
	program := theirs + "/bin/agented"
	must("install", "-D", "-o", who, "-m", "755", source, program)
	as := func(args ...string) (string, error) {
		return run(append([]string{"runuser", "-u", who, "--", "env", "-C", theirs, "HOME=" + theirs, "XDG_RUNTIME_DIR=/run/user/" + uid}, args...)...)
	}
	out, err = as(program, "service", "install", "--user")
	report(err == nil && strings.Contains(out, "serving at") && strings.Contains(out, "kept by systemd"), "the service of a user is installed: %v", err)
	if err != nil {
		fmt.Println(out)
		return
	}
	id, err := as(program, "run", "--detach", "--sandbox", "off", "--", "sh", "-c", "echo $$ > ~/pid; sleep 300")
	var pid []byte
	for range 100 {
		if pid, _ = os.ReadFile(theirs + "/pid"); len(pid) > 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	a := &agent{id: id, pid: strings.TrimSpace(string(pid))}
	a.start = startTime(a.pid)
	show, _ := as("systemctl", "--user", "show", "agented", "--value", "--property=MainPID")
	server, _ := strconv.Atoi(show)
	began := time.Now()
	kill(server, syscall.SIGKILL)
	d, ok := awaitReady(began, 10*time.Second)
	report(err == nil && server > 0 && ok && a.start != "" && same([]*agent{a}), "the service of a user: kill -9, ready again after %s, its agent as before", ms(d))
	_, err = as("systemctl", "--user", "restart", "agented")
	report(err == nil && same([]*agent{a}), "the service of a user: restarted, its agent as before (%v)", err)
	out, err = as(program, "service", "uninstall", "--user")
	report(err == nil && same([]*agent{a}), "the service of a user: uninstalled, its agent continues (%v)", err)
	if err != nil {
		fmt.Println(out)
	}
}

// createKey creates the key for the requests of the check, as the user of the service and without
// a key.
func createKey() {
	info, err := os.Stat(data + "/agented.sock")
	report(err == nil && info.Mode().Perm() == 0o600, "the local socket is in the data folder")
	var errs strings.Builder
	cmd := exec.Command("setpriv", "--reuid=agented", "--regid=agented", "--clear-groups", "/usr/local/bin/agented", "key", "create", "check", "--role", "admin")
	cmd.Env, cmd.Dir, cmd.Stderr = []string{"HOME=" + home, "AGENTED_DATA_DIR=" + data}, "/", &errs
	out, err := cmd.Output()
	key = strings.TrimSpace(string(out))
	report(err == nil && key != "", "a key was created over the local socket: %v %s", err, &errs)
}

func main() {
	fmt.Println("     " + strings.SplitN(must("systemctl", "--version"), "\n", 2)[0])
	source, err := filepath.Abs(filepath.Join(filepath.Dir(os.Args[0]), "agented"))
	if err != nil {
		panic(err)
	}
	_ = exec.Command("ip", "link", "set", "lo", "up").Run()

	if len(os.Args) > 1 && os.Args[1] == "user" {
		checkUserService(source)
		if failures > 0 {
			os.Exit(1)
		}
		return
	}
	began := time.Now()
	out := must(source, "service", "install")
	took := time.Since(began)
	_, ready := awaitReady(time.Now(), time.Second)
	report(ready && took < 5*time.Second && strings.Contains(out, "serving at"), "installed and ready after %s", ms(took))
	fmt.Println("     " + strings.ReplaceAll(out, "\n", "\n     "))
	createKey()
	report(property("NFileDescriptorStore") == "1", "systemd keeps %s socket", property("NFileDescriptorStore"))
	checkUnit()
	checkTools()
	agents := startAgents(3)
	checkShimEnvironment(agents[0])

	var times []string
	worst := time.Duration(0)
	for range 5 {
		pid := mainPID()
		began := time.Now()
		kill(pid, syscall.SIGKILL)
		d, ok := awaitReady(began, 10*time.Second)
		worst = max(worst, d)
		times = append(times, ms(d))
		report(ok && mainPID() != pid && same(agents), "kill -9: ready again after %s, agents as before", ms(d))
		time.Sleep(500 * time.Millisecond)
	}
	if load, cpus := busy(); load > 2*float64(cpus) && worst >= time.Second {
		fmt.Printf("SKIP kill -9 of the server, back within a second: not judged at a load of %.1f on %d processors: %s\n", load, cpus, strings.Join(times, ", "))
	} else {
		report(worst < time.Second, "kill -9 of the server, back within a second: %s (load %.1f on %d processors)", strings.Join(times, ", "), load, cpus)
	}

	began = time.Now()
	must("systemctl", "restart", "agented")
	report(same(agents), "restart took %s, agents as before", ms(time.Since(began)))
	began = time.Now()
	must("systemctl", "reload", "agented")
	report(mainPID() > 0 && same(agents), "reload took %s: %s", ms(time.Since(began)), property("ActiveState"))
	began = time.Now()
	must("systemctl", "stop", "agented")
	report(same(agents), "stop took %s, agents as before", ms(time.Since(began)))
	said, _ := run("journalctl", "-u", "agented", "-n", "20", "--no-pager", "-o", "cat")
	report(strings.Contains(said, fmt.Sprintf(`"left_running":%d`, len(agents))), "the journal says how many agents the stop has left: %d", len(agents))
	text := property("StatusText")
	report(strings.Contains(text, fmt.Sprint("executions that continue: ", len(agents))), "and so does the status: %s", text)
	time.Sleep(time.Second)
	must("systemctl", "start", "agented")
	report(same(agents), "started again, agents as before: %s", property("StatusText"))

	checkSlowRequest(agents)

	t := load(func() {
		for range 12 {
			time.Sleep(300 * time.Millisecond)
			must("systemctl", "restart", "agented")
		}
	})
	report(t.failed() == 0 && t.done.Load() > 100, "12 restarts under load: %s", t)
	t = load(func() {
		for range 6 {
			time.Sleep(300 * time.Millisecond)
			kill(mainPID(), syscall.SIGKILL)
			awaitReady(time.Now(), 10*time.Second)
		}
	})
	report(t.refused.Load() == 0 && t.status.Load() == 0, "6 times kill -9 under load, none refused: %s", t)
	report(same(agents), "agents as before")

	worst = 0
	for range 12 { // ends as soon as it has started
		pid := mainPID()
		began := time.Now()
		kill(pid, syscall.SIGKILL)
		d, ok := awaitReady(began, 10*time.Second)
		if !ok {
			report(false, "a crash loop: not back after %s, %s", d, property("ActiveState"))
		}
		worst = max(worst, d)
	}
	report(worst < 5*time.Second, "a crash loop of 12: back after at most %s", ms(worst))

	dropIn := "/etc/systemd/system/agented.service.d/watchdog.conf"
	_ = os.MkdirAll(filepath.Dir(dropIn), 0o755)
	if err := os.WriteFile(dropIn, []byte("[Service]\nWatchdogSec=2s\n"), 0o644); err != nil {
		panic(err)
	}
	must("systemctl", "daemon-reload")
	must("systemctl", "restart", "agented")
	time.Sleep(5 * time.Second)
	restarts := property("NRestarts")
	report(property("ActiveState") == "active", "5 s with a watchdog of 2 s: %s, restarts %s", property("ActiveState"), restarts)
	pid := mainPID()
	began = time.Now()
	kill(pid, syscall.SIGSTOP)
	d, ok := awaitReady(began, 15*time.Second)
	report(ok && mainPID() != pid && same(agents), "SIGSTOP with a watchdog of 2 s: served again after %s, agents as before", ms(d))
	dump, _ := run("journalctl", "-u", "agented", "--no-pager", "-o", "cat")
	report(strings.Contains(dump, "goroutine ") && strings.Contains(dump, "SIGABRT"), "the journal has the goroutines of the one that hung")

	if err := os.WriteFile(home+"/enough", nil, 0o644); err != nil {
		panic(err)
	}
	for _, a := range agents {
		state, text := end(a.id, 30*time.Second)
		lines := strings.Split(strings.TrimSpace(text), "\n")
		gaps := 0
		for i, line := range lines[:len(lines)-1] {
			if line != strconv.Itoa(i+1) {
				gaps++
			}
		}
		last := lines[len(lines)-1]
		report(state == "success" && gaps == 0 && strings.TrimSpace(last) == "kept kept kept fresh",
			"%s ended with %s: %d lines, %d out of place, temporary files %q", a.name, state, len(lines)-1, gaps, last)
	}

	// The socket unit instead of the descriptor store.
	out = must(source, "service", "install", "--socket")
	report(strings.Contains(out, "serving at"), "installed with a socket unit")
	_ = os.Remove(home + "/enough")
	agents = startAgents(1)
	t = load(func() {
		for range 4 {
			time.Sleep(300 * time.Millisecond)
			must("systemctl", "restart", "agented")
		}
	})
	report(t.failed() == 0 && t.done.Load() > 100, "4 restarts under load with the socket unit: %s", t)

	// And back again.
	must(source, "service", "install")
	_, gone := os.Stat("/etc/systemd/system/agented.socket")
	report(gone != nil && property("NFileDescriptorStore") == "1" && same(agents), "installed without the socket unit again, the agent as before")

	must(source, "service", "uninstall")
	_, gone = os.Stat("/etc/systemd/system/agented.service")
	_, refused := net.Dial("tcp", "127.0.0.1:20000")
	report(gone != nil && refused != nil && same(agents), "uninstalled: nothing listens, the agent continues")
	checkUserService(source)
	// The agent runs until the machine is switched off; run.sh checks its exit record.
	fmt.Println("     left running:", agents[0].id)
	fmt.Printf("     %d failures\n", failures)
	if failures > 0 {
		journal()
		os.Exit(1)
	}
}
