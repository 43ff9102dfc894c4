package shim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/sandbox"
)

// In a sandbox the CLI is not a child of the shim:
//
//	shim ── bwrap ── init ── CLI
//
// bwrap creates the namespaces and waits. init, which is the shim's program too, is the first
// process in them; when it ends, the kernel ends all others. It starts the CLI as the shim does
// outside of sandboxes, and talks to the shim over a socket:
//
//	shim to init   the order: path, folder, capture, level, ports; arguments; environment
//	init to shim   startedMark with pidfds of init and CLI, and the listener of the broker if it has
//	               a port; or failedMark with the reason
//	init to shim   endedMark with the CLI's status, once it has ended
//	shim to init   doneMark: the shim signals the CLI no more, init may reap it
const (
	startedMark = 'S'
	failedMark  = 'F'
	endedMark   = 'E'
	doneMark    = 'D'
)

// Descriptors of init, and its argument.
const (
	initSocketFD  = 3
	initStdinFD   = 4
	initProgramFD = 7
	initArgument  = "init"
)

// sandboxPatience bounds the wait for the start of the CLI in a sandbox.
const sandboxPatience = 30 * time.Second

// box is the shim's hold on a sandbox.
type box struct {
	conn        *net.UnixConn
	bwrap, init int      // pids
	pidfd       *os.File // of init
	listener    *os.File // of the broker, in the network of the sandbox; nil means none
}

// forkBox starts the CLI in a sandbox and returns its pid. The error is a message for users, or
// the error of a fork.
func forkBox(spec *Spec, given *handover, in *os.File, out *outlet, group *cgroup) (int, *box, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return 0, nil, err
	}
	defer theirs.Close()
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return 0, nil, err
	}
	b := &box{conn: conn.(*net.UnixConn)}
	errs, errsIn, err := os.Pipe()
	if err != nil {
		b.close()
		return 0, nil, err
	}
	defer errs.Close()
	defer errsIn.Close()
	if b.bwrap, err = forkWrapper(spec, theirs, in, out, errsIn, group); err != nil {
		b.close()
		return 0, nil, err
	}
	theirs.Close()
	errsIn.Close()
	child, err := b.begin(spec, given)
	if err == nil {
		return child, b, nil
	}
	// Whatever was started ends with the sandbox.
	b.close()
	_ = unix.Kill(b.bwrap, unix.SIGKILL)
	for {
		if _, waitErr := unix.Wait4(b.bwrap, nil, unix.WALL, nil); !errors.Is(waitErr, unix.EINTR) {
			break
		}
	}
	var refused sandboxError
	if errors.As(err, &refused) {
		return 0, nil, err
	}
	_ = errs.SetReadDeadline(time.Now().Add(time.Second))
	printed, _ := io.ReadAll(io.LimitReader(errs, 4096))
	return 0, nil, sandboxError(sandbox.Explain(spec.Sandbox.Level, readable(strings.TrimSpace(string(printed)), 1000)))
}

// forkWrapper starts bwrap with init as its program.
func forkWrapper(spec *Spec, socket, in *os.File, out *outlet, errs *os.File, group *cgroup) (int, error) {
	program, err := os.Open("/proc/self/exe")
	if err != nil {
		return 0, err
	}
	defer program.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	sys := &syscall.SysProcAttr{Setpgid: true}
	withChild(sys, group)
	command := spec.Sandbox.Command
	args := append(command[:len(command):len(command)], "--", fmt.Sprintf("/proc/self/fd/%d", initProgramFD), "shim", initArgument)
	return syscall.ForkExec(command[0], args, &syscall.ProcAttr{
		Dir: "/",
		Env: []string{"GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=32MiB", "LC_ALL=C"},
		Files: []uintptr{
			null.Fd(), null.Fd(), errs.Fd(), socket.Fd(),
			in.Fd(), out.child[0].Fd(), out.child[1].Fd(), program.Fd(),
		},
		Sys: sys,
	})
}

// begin sends the order and waits until the CLI runs.
func (b *box) begin(spec *Spec, given *handover) (child int, err error) {
	deadline := time.Now().Add(sandboxPatience)
	_ = b.conn.SetDeadline(deadline)
	facts := []string{spec.Path, spec.Dir, string(spec.Capture), string(spec.Sandbox.Level), strconv.Itoa(spec.Sandbox.BrokerPort)}
	if f := spec.Sandbox.Forward; f != nil {
		facts = append(facts, strconv.Itoa(f.Port), f.Socket)
	}
	order := encodeLists(facts, given.Args, given.Env)
	// If bwrap fails, the read reports it.
	_, _ = b.conn.Write(order)
	var mark [1]byte
	room := make([]byte, unix.CmsgSpace(3*4))
	n, size, _, _, err := b.conn.ReadMsgUnix(mark[:], room)
	var fds []int
	if messages, parseErr := unix.ParseSocketControlMessage(room[:size]); parseErr == nil && len(messages) == 1 {
		fds, _ = unix.ParseUnixRights(&messages[0])
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
		defer unix.Close(fd)
	}
	switch {
	case err != nil || n != 1:
		return 0, errors.New("the sandbox ended")
	case mark[0] == failedMark:
		text, _ := io.ReadAll(io.LimitReader(b.conn, 64<<10))
		return 0, sandboxError(text)
	case mark[0] != startedMark || len(fds) < 2 || (len(fds) == 3) != (spec.Sandbox.BrokerPort > 0):
		return 0, errors.New("the sandbox gave an unknown answer")
	}
	b.init, child = pidOf(fds[0]), pidOf(fds[1])
	if b.init <= 0 || child <= 0 {
		return 0, errors.New("the sandbox is not a descendant")
	}
	held, err := unix.FcntlInt(uintptr(fds[0]), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	b.pidfd = os.NewFile(uintptr(held), "pidfd")
	if len(fds) == 3 {
		if held, err = unix.FcntlInt(uintptr(fds[2]), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return 0, err
		}
		b.listener = os.NewFile(uintptr(held), "broker")
	}
	_ = b.conn.SetDeadline(time.Time{})
	return child, nil
}

// pidOf returns the pid of a process as this process sees it.
func pidOf(pidfd int) int {
	b, _ := readSome(fmt.Sprintf("/proc/self/fdinfo/%d", pidfd), 512)
	for line := range strings.Lines(string(b)) {
		pid := 0
		if _, err := fmt.Sscanf(line, "Pid: %d", &pid); err == nil {
			return pid
		}
	}
	return 0
}

// watch passes the CLI's end to the reaper, and then lets init reap it.
func (b *box) watch(r *reaper) {
	var text [5]byte
	if _, err := io.ReadFull(b.conn, text[:]); err == nil && text[0] == endedMark {
		r.leaderEnded(unix.WaitStatus(binary.BigEndian.Uint32(text[1:])))
		_, _ = b.conn.Write([]byte{doneMark})
	}
	// Until init has ended; it ends itself when this end of the socket is closed.
	_, _ = io.Copy(io.Discard, b.conn)
	b.conn.Close()
}

// kill ends the sandbox, and with it all its processes.
func (b *box) kill() {
	if b == nil {
		return
	}
	// Not by Fd: the attempt may end, and close the descriptor, at the same time.
	if raw, err := b.pidfd.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
	}
}

// has reports whether a process belongs to the sandbox itself, as opposed to the CLI.
func (b *box) has(pid int) bool { return b != nil && (pid == b.bwrap || pid == b.init) }

// wrapper returns the pid of the shim's child, or 0 without a sandbox.
func (b *box) wrapper() int {
	if b == nil {
		return 0
	}
	return b.bwrap
}

func (b *box) close() {
	if b == nil {
		return
	}
	b.conn.Close()
	for _, f := range []*os.File{b.pidfd, b.listener} {
		if f != nil {
			f.Close()
		}
	}
}

// brokerListener returns the listener of the broker in the sandbox, or nil.
func (b *box) brokerListener() *os.File {
	if b == nil {
		return nil
	}
	return b.listener
}

// initMain is the first process of a sandbox. It returns when no other process is left in it.
func initMain() int {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, errNotForYou)
		return 2
	}
	// No signal of the CLI ends it, except SIGKILL, which the kernel ignores. Caught and dropped
	// instead of ignored, because child processes inherit ignored signals.
	dropSignals()
	_ = unix.CloseRange(initSocketFD, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC)
	_ = os.WriteFile("/proc/self/comm", []byte(shimName), 0)
	lists, err := readLists(os.NewFile(initSocketFD, "socket"), 3)
	if err != nil || len(lists[0]) != 5 && len(lists[0]) != 7 {
		return 2
	}
	level := agented.Sandbox(lists[0][3])
	// Its memory contains the environment until the CLI runs.
	err = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	if err == nil {
		err = restrict()
	}
	if err != nil {
		return initFailed(sandbox.Refusal(level, "its system calls could not be restricted: "+plainCause(err)+"; a kernel of version 5.3 or newer with seccomp is required"))
	}
	listener, err := openPorts(lists[0][4:])
	if err != nil {
		return initFailed(sandbox.Refusal(level, "a port of its network cannot be opened: "+plainCause(err)+"; run `agented doctor`"))
	}
	spec := &Spec{Path: lists[0][0], Dir: lists[0][1], Capture: agented.Capture(lists[0][2])}
	child, err := forkExec(spec.Path, lists[1], &syscall.ProcAttr{
		Dir: spec.Dir, Env: lists[2],
		Files: []uintptr{initStdinFD, initStdinFD + 1, initStdinFD + 2},
		Sys:   childAttr(spec.Capture),
	})
	if err != nil {
		return initFailed(startError(spec, err).Error())
	}
	for fd := initStdinFD; fd <= initProgramFD; fd++ {
		unix.Close(fd)
	}
	err = reportStart(child, listener)
	if listener != nil {
		listener.Close() // the shim has its own copy
	}
	if err != nil {
		return initFailed(sandbox.Refusal(level, "its processes cannot be identified: "+plainCause(err)+"; a kernel of version 5.3 or newer is required"))
	}
	return initReap(child)
}

// initFailed reports that the CLI could not be started.
func initFailed(text string) int {
	_, _ = unix.Write(initSocketFD, append([]byte{failedMark}, text...))
	return 1
}

// openPorts opens the ports of a sandbox's network: that of the broker, whose listener the shim
// serves, and one that is forwarded to a socket.
func openPorts(facts []string) (broker *os.File, err error) {
	if len(facts) == 3 {
		l, err := net.Listen("tcp4", "127.0.0.1:"+facts[1])
		if err != nil {
			return nil, err
		}
		go sandbox.Forward(l, facts[2])
	}
	if facts[0] == "0" {
		return nil, nil
	}
	l, err := net.Listen("tcp4", "127.0.0.1:"+facts[0])
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.(*net.TCPListener).File()
}

// reportStart sends pidfds of init and the CLI, and a listener if there is one. The CLI cannot have
// been reaped.
func reportStart(child int, listener *os.File) error {
	own, err := unix.PidfdOpen(1, 0)
	if err != nil {
		return err
	}
	defer unix.Close(own)
	fd, err := unix.PidfdOpen(child, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	fds := []int{own, fd}
	if listener != nil {
		fds = append(fds, int(listener.Fd()))
	}
	return unix.Sendmsg(initSocketFD, []byte{startedMark}, unix.UnixRights(fds...), nil, 0)
}

// initReap reaps all processes of the sandbox until none is left. It reaps the CLI only when the
// shim has marked it as ended, so that the shim does not signal a reused pid.
func initReap(child int) int {
	done := make(chan struct{})
	go func() {
		var b [1]byte
		var once sync.Once
		for {
			n, err := unix.Read(initSocketFD, b[:])
			switch {
			case errors.Is(err, unix.EINTR):
			case err != nil || n == 0:
				os.Exit(1) // the shim has ended, and the CLI must not outlive it
			default:
				once.Do(func() { close(done) })
			}
		}
	}()
	for {
		pid, status, err := nextEnded()
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0
		}
		if pid == child {
			child = 0
			text := binary.BigEndian.AppendUint32([]byte{endedMark}, uint32(status))
			_, _ = unix.Write(initSocketFD, text)
			<-done
		}
		_, _ = unix.Wait4(pid, nil, unix.WALL, nil)
	}
}

// nextEnded waits for a child that has ended, without reaping it.
func nextEnded() (pid int, status unix.WaitStatus, err error) {
	// siginfo_t of SIGCHLD on a 64-bit system.
	var info struct {
		signo, errno, code, _ int32
		pid, uid, status      int32
		_                     [100]byte
	}
	if err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOWAIT|unix.WALL, nil); err != nil {
		return 0, 0, err
	}
	const exited, dumped = 1, 3 // CLD_EXITED, CLD_DUMPED
	switch info.code {
	case exited:
		status = unix.WaitStatus(info.status&0xff) << 8
	case dumped:
		status = unix.WaitStatus(info.status&0x7f | 0x80)
	default:
		status = unix.WaitStatus(info.status & 0x7f)
	}
	return int(info.pid), status, nil
}
