package shim

import (
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/sandbox"
	"github.com/agented/agented/internal/testrun"
)

// survivesShim are the tests of processes that survive their shim, which none does in a sandbox,
// and of pids that a command prints, which are others in a sandbox. The tests of the broker choose
// their own level.
const survivesShim = "TestSandbox|TestBroker|TestLeaderlessProcess|TestSettle_after_reboot|TestSettle_drains_raw_files|TestPause_keeps_stopped_process"

// TestSandbox_all_other_tests runs the tests of this package with every attempt in a sandbox: all of
// them in make test-long, otherwise those of processes and their ends, which a sandbox changes.
func TestSandbox_all_other_tests(t *testing.T) {
	t.Parallel()
	if os.Getenv(levelVariable) != "" {
		t.Skip("this is the inner run")
	}
	guard(t, sandbox.Request{})
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for level, tests := range map[agented.Sandbox]string{
		agented.SandboxGuard:  "TestExit|TestStart|TestTree|TestStop|TestPause|TestEnvironment|TestTerminal|TestSettle|TestAdopt",
		agented.SandboxStrict: "TestExit|TestTree|TestPause|TestAdopt",
	} {
		args := []string{"-test.timeout=8m", "-test.skip", survivesShim}
		if !testrun.Long() {
			args = append(args, "-test.short", "-test.run", tests)
		}
		cmd := exec.Command(exe, args...)
		cmd.Env = append(os.Environ(), levelVariable+"="+string(level))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", level, err, out)
		}
	}
}

// TestSandbox_unprivileged runs the attacks as another user than root.
func TestSandbox_unprivileged(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("TestSandbox_attacks has run as this user")
	}
	guard(t, sandbox.Request{})
	const nobody = 65534
	dir, err := os.MkdirTemp("", "sb-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	text, err := os.ReadFile("/proc/self/exe")
	exe := filepath.Join(dir, "shim.test")
	if err == nil {
		err = testrun.WriteProgram(exe, text, 0o755)
	}
	if err == nil {
		err = os.Chown(dir, nobody, nobody)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, level := range agented.Sandboxes[1:] {
		cmd := exec.Command(exe, "-test.run", "TestSandbox_attacks|TestSandbox_own|TestSandbox_dies|TestTree|TestStart_failure", "-test.v")
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + dir, "HOME=" + dir, levelVariable + "=" + string(level)}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := cmd.CombinedOutput()
		if strings.Contains(string(out), "NOT TESTED") {
			t.Skip("NOT TESTED: SANDBOX LEVEL " + strings.ToUpper(string(level)) + " WITHOUT ROOT: " + string(out))
		}
		if err != nil || !strings.Contains(string(out), "--- PASS: TestSandbox_attacks") {
			t.Errorf("%s: %v\n%s", level, err, out)
		}
	}
}

// guarded is an attempt in a sandbox that hides the folder of the run, with a secret in it.
func guarded(t *testing.T, script string, own ...string) *run {
	t.Helper()
	r := newRun(t, agented.CapturePipe, script)
	data := filepath.Dir(r.dir)
	if err := os.WriteFile(filepath.Join(data, "secret"), []byte("secret-content\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	request := sandbox.Request{Secret: []string{data}}
	for _, name := range own {
		path := filepath.Join(data, name)
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		request.Own = append(request.Own, sandbox.Folder{Path: path})
	}
	r.spec.Sandbox = guard(t, request)
	r.priv.Env = append(r.priv.Env, "DATA="+data, fmt.Sprintf("SERVER=%d", os.Getpid()), "BUNDLE="+r.bundle)
	return r
}

// attacks are scripts that print what they found, and nothing if they failed.
var attacks = map[string]string{
	"read a secret":             `cat $DATA/secret; ls -A $DATA`,
	"write":                     `echo x >$DATA/secret && echo written; mkdir $DATA/new && echo made`,
	"control socket":            `ls $BUNDLE/ctl.sock`,
	"list processes":            `tr '\0' '\n' </proc/$SERVER/cmdline; grep -l agshim /proc/[0-9]*/comm | grep -v /proc/1/`,
	"environment of init":       `cat /proc/1/environ; readlink /proc/1/exe; ls /proc/1/cwd/; readlink /proc/1/fd/*; cat /proc/1/mem | head -c 1`,
	"memory of init":            `head -c 10 /proc/1/maps`,
	"kill the server":           `kill -9 $SERVER && echo killed`,
	"kill all":                  `trap '' TERM; kill -TERM -1; kill -0 $SERVER && echo reached`,
	"uncover":                   `umount $DATA && cat $DATA/secret; umount -l $DATA && cat $DATA/secret`,
	"uncover in a namespace":    `unshare -Urm sh -c "umount -l $DATA; cat $DATA/secret; mount --bind / /mnt && cat /mnt$DATA/secret; mount --rbind / /mnt && cat /mnt$DATA/secret"`,
	"uncover without a mapping": `unshare -Um sh -c "umount -l $DATA; cat $DATA/secret; mount --bind / /mnt && cat /mnt$DATA/secret"`,
	"remount":                   `mount -o remount,rw $DATA && touch $DATA/x && echo written; unshare -Urm sh -c "mount -o remount,bind,rw $DATA && touch $DATA/x && echo written"`,
	"move the cover":            `unshare -Urm sh -c "mount --move $DATA /mnt && cat $DATA/secret"; mv $DATA $DATA.old && echo moved`,
	"new process table":         `unshare -Urmpf sh -c "mount -t proc proc /proc; cat /proc/$SERVER/cmdline"`,
	"control group namespace":   `unshare -UrmC sh -c "mount -t cgroup2 none /mnt && ls /mnt"; unshare -UmC true && echo created`,
	"control groups":            `for d in /sys/fs/cgroup /sys/fs/cgroup/unified; do mkdir $d/evil && echo made; done; echo $$ >/sys/fs/cgroup/unified/cgroup.procs && echo joined`,
	"kernel settings":           `for f in kernel/core_pattern kernel/modprobe vm/swappiness; do v=$(cat /proc/sys/$f); echo "$v" >/proc/sys/$f && echo written; done; echo h >/proc/sysrq-trigger && echo written`,
	"files of the kernel":       `[ $(id -u) != 0 ] || find /sys /proc -maxdepth 3 -type f -perm -u+w -writable | grep -v -E '^/proc/([0-9]+|self|thread-self)/|^/proc/(mtrr|pressure/.*)$'`,
	"settings in a namespace":   `unshare -Urmpf sh -c 'mount -t proc proc /proc && for f in kernel/core_pattern kernel/modprobe; do v=$(cat /proc/sys/$f); echo "$v" >/proc/sys/$f && echo written; done'`,
	"devices":                   `ls /dev | grep -E '^(vd|sd|nvme|mem|kmsg|dm|loop)'; mknod /tmp/agented-disk b 254 0 && head -c 1 /tmp/agented-disk && rm /tmp/agented-disk`,
	"root writes":               `[ $(id -u) != 0 ] || for d in / /etc /usr /opt /var/spool /run /boot /home; do touch $d/agented-probe && { echo $d; rm $d/agented-probe; }; done`,
	"service manager":           `systemd-run --wait -q true && echo started; systemd-run --user --wait -q true && echo started`,
}

func TestSandbox_attacks(t *testing.T) {
	t.Parallel()
	for name, script := range attacks {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			r := guarded(t, "{ "+script+"; } 2>/dev/null; echo end")
			r.priv.Env[0] += ":/usr/sbin:/sbin"
			if exit := r.do(); exit.Cause == agented.CauseNoStart {
				t.Fatal(exit.Detail)
			}
			wantLines(t, r, agented.Stdout, "end")
			if b, err := os.ReadFile(filepath.Join(filepath.Dir(r.dir), "secret")); string(b) != "secret-content\n" {
				t.Errorf("the secret is %q: %v", b, err)
			}
		})
	}
}

// TestSandbox_attacks_detect_leaks proves that the scripts find what is there: without a sandbox,
// harmless ones of them must print something.
func TestSandbox_attacks_detect_leaks(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"read a secret", "write", "control socket", "list processes"} {
		r := guarded(t, "{ "+attacks[name]+"; } 2>/dev/null; echo end")
		r.spec.Sandbox = nil
		r.do()
		if got := r.contents(agented.Stdout); len(got) < 2 {
			t.Errorf("%s found nothing without a sandbox: %q", name, got)
		}
	}
}

func TestSandbox_hides_sockets(t *testing.T) {
	t.Parallel()
	r := guarded(t, "")
	path := filepath.Join(filepath.Dir(r.dir), "..", "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r.spec.Sandbox = guard(t, sandbox.Request{Secret: []string{path}})
	r.program("connect", path)
	r.do()
	wantLines(t, r, agented.Stdout, "connect: connection refused")
}

func TestSandbox_own_folders_usable(t *testing.T) {
	t.Parallel()
	r := guarded(t, `echo x >file && mv file other && cat other; pwd; ls -A $DATA $DATA/execution; touch /dev/shm/x && echo shared`, "execution/work")
	data := filepath.Dir(r.dir)
	r.spec.Dir = filepath.Join(r.dir, "work")
	wantCode(t, r, r.do(), 0)
	wantLines(t, r, agented.Stdout, "x", r.spec.Dir, data+":", "execution", "", r.dir+":", "work", "shared")
	if _, err := os.Stat(filepath.Join(r.spec.Dir, "other")); err != nil {
		t.Error(err)
	}
}

func TestSandbox_dies_with_shim(t *testing.T) {
	t.Parallel()
	r := guarded(t, `setsid sh -c 'trap "" TERM HUP; echo ready; while :; do sleep 0.02; done' & wait`).start()
	r.eventually("the start", func() bool { return len(r.contents(agented.Stdout)) == 1 })
	if len(r.orphans()) == 0 {
		t.Fatal("no process is visible")
	}
	r.killShim()
	r.eventually("the end of all processes", func() bool { return len(r.orphans()) == 0 })
	if exit := r.settle(); exit.Cause != agented.CauseLost {
		t.Errorf("exit = %+v", exit)
	}
}

func TestSandbox_init_killed(t *testing.T) {
	t.Parallel()
	r := guarded(t, `echo ready; while :; do sleep 0.02; done`).start()
	r.eventually("the start", func() bool { return len(r.contents(agented.Stdout)) == 1 })
	child, ok := lookUp(r.h.PID())
	if !ok {
		t.Fatal("the CLI's pid is unknown")
	}
	if err := unix.Kill(child.parent, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if exit := r.wait(); exit.Cause != agented.CauseExit || exit.Signal != "SIGKILL" {
		t.Errorf("exit = %+v", exit)
	}
}

func TestSandbox_impossible(t *testing.T) {
	t.Parallel()
	r := guarded(t, "echo ran")
	for _, command := range [][]string{
		{r.spec.Sandbox.Command[0], "--no-such-option"},
		{"/bin/false"},
	} {
		r := newRun(t, agented.CapturePipe, "echo ran")
		r.spec.Sandbox = &Box{Level: agented.SandboxGuard, Command: command}
		exit := r.do()
		if exit.Cause != agented.CauseNoStart || !strings.Contains(exit.Detail, "sandbox guard is not available on this machine") {
			t.Errorf("%q: %+v", command, exit)
		}
		wantLines(t, r, agented.Stdout)
	}
}

func TestSandbox_shim_reused(t *testing.T) {
	KeepWarm(1)
	defer KeepWarm(0)
	pids := map[int]bool{}
	for i := range 6 {
		r := guarded(t, "echo out; exit 3")
		if i%2 == 1 {
			r.spec.Sandbox = nil
		}
		wantCode(t, r, r.do(), 3)
		pids[r.shimPID()] = true
		time.Sleep(20 * time.Millisecond)
	}
	if len(pids) == 6 {
		t.Error("no shim was used twice")
	}
}

// TestSandbox_open_by_handle opens a file of a hidden folder by its handle, which root can without
// a path.
func TestSandbox_open_by_handle(t *testing.T) {
	t.Parallel()
	r := guarded(t, "")
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, filepath.Join(filepath.Dir(r.dir), "secret"), 0)
	if err != nil {
		t.Skipf("the file system of %s has no handles: %v", r.dir, err)
	}
	work := t.TempDir() // on the same file system
	args := []string{"by-handle", work, fmt.Sprint(handle.Type()), hex.EncodeToString(handle.Bytes())}
	r.program(args...)
	r.do()
	wantLines(t, r, agented.Stdout, "operation not permitted")
	if os.Geteuid() != 0 {
		return
	}
	r = guarded(t, "").program(args...)
	r.spec.Sandbox = nil
	r.do()
	wantLines(t, r, agented.Stdout, "opened")
}

func init() {
	systemStandIns["connect"] = func(args []string) int {
		if _, err := net.Dial("unix", args[0]); err != nil {
			text := err.Error()
			fmt.Println(text[strings.LastIndex(text, "connect: "):])
			return 1
		}
		fmt.Println("connected")
		return 0
	}
	systemStandIns["by-handle"] = func(args []string) int {
		kind, _ := strconv.Atoi(args[1])
		bytes, _ := hex.DecodeString(args[2])
		mount, err := unix.Open(args[0], unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err == nil {
			_, err = unix.OpenByHandleAt(mount, unix.NewFileHandle(int32(kind), bytes), unix.O_RDONLY)
		}
		if err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println("opened")
		return 0
	}
}
