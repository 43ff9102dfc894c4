package testrun

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// roleEnv tells a process of a contained test binary what it is.
const roleEnv = "AGENTED_TEST_ROLE"

// endTime is how long processes that tests leave may take to end by themselves.
const endTime = 5 * time.Second

// Contain runs the tests in a process of their own, below a supervisor that ends
// what they leave, however they end. TestMain calls it first, but after it has
// dealt with the roles that its tests start the binary for. It returns in the
// process that runs the tests and nowhere else.
//
// There are three processes: the one that was started waits for the supervisor and
// forwards signals; the supervisor has a session of its own, so it survives what
// ends the first; the tests are its child. As the subreaper it is the parent of
// every orphan among its descendants. When the tests have ended and a process
// of theirs is still there after a few seconds, the supervisor kills it, names it
// and fails the run.
func Contain() {
	for _, arg := range os.Args[1:] {
		// A fuzz worker has pipes that it must inherit; its coordinator ends it.
		if strings.HasPrefix(arg, "-test.fuzz=") || strings.HasPrefix(arg, "-test.fuzzworker") {
			return
		}
	}
	if os.Getenv(roleEnv) == "tests" {
		os.Unsetenv(roleEnv)
		return
	}
	contain(again("tests"))
}

// ContainCommand runs a command as Contain runs the tests, and exits with its
// code.
func ContainCommand(name string, args ...string) {
	cmd := exec.Command(name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	contain(cmd)
}

// contain is the first process or the supervisor, which runs cmd.
func contain(cmd *exec.Cmd) {
	if os.Getenv(roleEnv) == "supervisor" {
		os.Unsetenv(roleEnv)
		os.Exit(supervise(cmd))
	}
	os.Exit(wait())
}

// again describes this program in another role.
func again(role string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		exe = os.Args[0]
	}
	cmd := exec.Command(exe)
	cmd.Args = os.Args
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, roleEnv+"=") }), roleEnv+"="+role)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

// wait is the process that was started.
func wait() int {
	// When `go test` is killed, this process ends, and with it all others.
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0)
	read, write, err := os.Pipe()
	if err != nil {
		return fail(err)
	}
	cmd := again("supervisor")
	cmd.ExtraFiles = []*os.File{read}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT)
	if err := cmd.Start(); err != nil {
		return fail(err)
	}
	read.Close()
	go func() {
		for s := range signals {
			_, _ = write.Write([]byte{byte(s.(syscall.Signal))})
		}
	}()
	return exitCode(cmd.Wait())
}

// supervise is the supervisor: it runs cmd and ends what it leaves.
func supervise(cmd *exec.Cmd) int {
	// `go test` may have been killed, and nothing reads the output then. A write that ends this
	// process with SIGPIPE would leave the processes of the tests. Caught instead of ignored, because
	// the tests would inherit an ignored signal.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	line := os.NewFile(3, "line to the first process")
	unix.CloseOnExec(3)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fail(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fail(err)
	}
	tests := cmd.Process.Pid
	go func() {
		buf := make([]byte, 1)
		for {
			_, err := line.Read(buf)
			if errors.Is(err, io.EOF) { // the first process was killed
				killAll()
				os.Exit(1)
			}
			if err != nil {
				return
			}
			_ = unix.Kill(tests, unix.Signal(buf[0]))
		}
	}()
	// Reap everything: orphans arrive here, and a test may wait for their end.
	var status unix.WaitStatus
	for {
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if pid == tests {
			break
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fail(err)
		}
	}
	code := status.ExitStatus()
	if status.Signaled() {
		fmt.Fprintf(os.Stderr, "the tests ended by signal: %v\n", status.Signal())
		code = 2
	}
	if left := afterwards(); len(left) > 0 && code == 0 {
		fmt.Printf("FAIL: processes of the tests were still there %v after their end:\n\t%s\n", endTime, strings.Join(left, "\n\t"))
		code = 1
	}
	return code
}

// afterwards waits until no descendant is left and kills what stays, of which
// it returns the command lines.
func afterwards() (left []string) {
	for deadline := time.Now().Add(endTime); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if reap() {
			return nil
		}
	}
	return killAll()
}

// reap collects the children that have ended and reports whether none is left.
func reap() (none bool) {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.ECHILD):
			return true
		case errors.Is(err, unix.EINTR):
		case pid <= 0:
			return false
		}
	}
}

// killAll kills the descendants until none is left, and returns their command
// lines.
func killAll() (killed []string) {
	for range 1000 {
		for _, pid := range descendants() {
			cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if len(cmdline) > 0 {
				killed = append(killed, fmt.Sprintf("%d: %s", pid, strings.ReplaceAll(strings.TrimRight(string(cmdline), "\x00"), "\x00", " ")))
			}
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if reap() {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	slices.Sort(killed)
	return slices.Compact(killed)
}

// descendants lists the processes below this one, from /proc.
func descendants() []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		// The name is in parentheses and may hold anything; then: state, parent.
		rest := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(rest) < 2 {
			continue
		}
		parent, _ := strconv.Atoi(rest[1])
		children[parent] = append(children[parent], pid)
	}
	var out []int
	for todo := children[os.Getpid()]; len(todo) > 0; todo = todo[1:] {
		out = append(out, todo[0])
		todo = append(todo, children[todo[0]]...)
	}
	return out
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return exit.ExitCode()
	}
	return fail(err)
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "test run:", err)
	return 2
}
