package workspace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
	"github.com/agented/agented/internal/filelock"
	"github.com/agented/agented/internal/format"
)

// errNoRef is returned if the repository has no ref of the requested name.
var errNoRef = errors.New("no such ref")

// tokenName is the variable from which git's credential helper reads the token.
const tokenName = "AGENTED_GIT_TOKEN"

// passed lists the variables of the server that git receives: user, home, locale, and network
// settings.
var passed = []string{
	"HOME", "USER", "LOGNAME", "PATH", "TMPDIR", "SSH_AUTH_SOCK",
	"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
	"GIT_SSL_CAINFO", "GIT_SSL_CAPATH",
}

const (
	quickTime  = 5 * time.Minute // for commands without network access
	killAfter  = 5 * time.Second // from SIGTERM to SIGKILL
	sayEvery   = 10 * time.Second
	guardEvery = time.Second
	maxWords   = 300 // bytes of git's output in a message
)

// git runs git for one job.
type git struct {
	j    *job
	env  []string
	args []string // before the command
	lock *os.File // inherited, so that the lock is held until the last git process has ended
}

func (m *Manager) newGit(j *job, lock *os.File) *git {
	g := &git{j: j, lock: lock}
	for _, name := range passed {
		if value, ok := m.o.Lookup(name); ok {
			g.env = append(g.env, name+"="+value)
		}
	}
	if file, ok := m.o.Lookup("SSL_CERT_FILE"); ok {
		g.env = append(g.env, "GIT_SSL_CAINFO="+file)
	}
	if !slices.ContainsFunc(g.env, func(kv string) bool { return strings.HasPrefix(kv, "PATH=") }) {
		g.env = append(g.env, "PATH=/usr/local/bin:/usr/bin:/bin")
	}
	global := os.DevNull
	if j.repo.Protocol == "file" {
		global = m.safeConfig(j.home)
	}
	g.env = append(g.env,
		"LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+global, "GIT_ATTR_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=/bin/false", "SSH_ASKPASS=/bin/false", "SSH_ASKPASS_REQUIRE=never", "GCM_INTERACTIVE=never",
		"GIT_ALLOW_PROTOCOL="+strings.Join(m.o.Protocols, ":"), "GIT_PROTOCOL_FROM_USER=0", "GIT_LFS_SKIP_SMUDGE=1",
		"GIT_SSH_COMMAND=ssh -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15 -o ServerAliveCountMax=4",
	)
	g.args = []string{
		"-c", "core.hooksPath=" + os.DevNull, "-c", "core.fsmonitor=false", "-c", "core.askPass=/bin/false", "-c", "credential.helper=",
		"-c", "submodule.recurse=false", "-c", "fetch.recurseSubmodules=false", "-c", "fetch.fsckObjects=false", "-c", "gc.auto=0", "-c", "maintenance.auto=false",
		"-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=120", "-c", "advice.detachedHead=false", "-c", "init.defaultBranch=main",
		"-c", "transfer.bundleURI=false", "-c", "protocol.version=2",
	}
	if j.r.Token != "" {
		g.env = append(g.env, tokenName+"="+j.r.Token)
		// For this host only: a redirect to another host gets no token.
		g.args = append(g.args, "-c", "credential."+j.origin()+".helper="+helper(j.user(), "$"+tokenName))
	}
	return g
}

// local runs a command that needs no network.
func (g *git) local(ctx context.Context, dir string, args ...string) error {
	_, err := g.run(ctx, call{dir: dir, args: args, limit: quickTime})
	return err
}

// feed is like local, with standard input.
func (g *git) feed(ctx context.Context, dir, in string, args ...string) error {
	_, err := g.run(ctx, call{dir: dir, args: args, limit: quickTime, in: in})
	return err
}

// output is like local and returns git's output.
func (g *git) output(ctx context.Context, dir string, args ...string) (string, error) {
	return g.run(ctx, call{dir: dir, args: args, limit: quickTime})
}

// fetch fetches into the mirror.
func (g *git) fetch(ctx context.Context, mirror string, depth int, address string, specs ...string) error {
	args := []string{"fetch", "--no-tags", "--no-write-fetch-head", "--progress", "--force"}
	if depth > 0 {
		args = append(args, "--depth="+strconv.Itoa(depth))
	}
	args = append(append(args, "--", address), specs...)
	_, err := g.run(ctx, call{dir: mirror, args: args, limit: g.j.m.o.Timeout, network: true})
	return err
}

// call is one invocation of git.
type call struct {
	dir     string
	args    []string
	limit   time.Duration
	in      string
	network bool
	most    int // maximum bytes of output; 0 means 1 MiB
}

// run runs git in a process group of its own, and kills the group at the timeout, when the disk
// is nearly full, or when ctx ends.
func (g *git) run(ctx context.Context, c call) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.limit, errTooLong)
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	cmd := exec.CommandContext(ctx, g.j.m.o.program, append(slices.Clone(g.args), c.args...)...)
	cmd.Dir, cmd.Env = c.dir, append(slices.Clone(g.env), "PWD="+c.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.ExtraFiles = []*os.File{g.lock}
	if c.in != "" {
		cmd.Stdin = strings.NewReader(c.in)
	}
	var out bytes.Buffer
	cmd.Stdout = &limited{w: &out, left: max(c.most, 1<<20)}
	words := &words{say: g.j.r.Say}
	if !c.network {
		words.say = nil
	}
	cmd.Stderr = words
	var killing sync.WaitGroup
	cmd.Cancel = func() error {
		pid := cmd.Process.Pid
		_ = syscall.Kill(-pid, syscall.SIGTERM)
		return nil
	}
	cmd.WaitDelay = killAfter
	if err := cmd.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return "", failed("git is not installed, or not on the server's PATH: install git", err)
		}
		return "", failed("git could not be started: "+plain(err), err)
	}
	pid := cmd.Process.Pid
	done := make(chan struct{})
	killing.Go(func() { g.guard(c, done, end) })
	err := cmd.Wait()
	close(done)
	killing.Wait()
	// Processes that git left, such as a helper that hangs.
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	if err == nil {
		return out.String(), nil
	}
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, errTooLong):
		return "", &Error{Class: agented.ClassNetwork, Text: fmt.Sprintf("git %s took longer than %s and was stopped%s", c.args[0], c.limit, quoted(g.mask(words.last()))), Cause: cause}
	case errors.Is(cause, errDiskFull):
		return "", failed("the disk with the workspaces is nearly full, so git "+c.args[0]+" was stopped: free disk space", cause)
	case ctx.Err() != nil:
		return "", ctx.Err()
	}
	return "", g.explain(c, words.all(), err)
}

var (
	errTooLong  = errors.New("took too long")
	errDiskFull = errors.New("the disk is nearly full")
)

// guard stops a fetch before the disk is full.
func (g *git) guard(c call, done <-chan struct{}, end context.CancelCauseFunc) {
	if !c.network || g.j.m.o.MinFree == 0 {
		return
	}
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	for {
		if space, err := disk.Measure(c.dir); err == nil && space.Free < g.j.m.o.MinFree {
			end(errDiskFull)
			return
		}
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
}

// quoted returns the last line of git's output as part of a sentence.
func quoted(s string) string {
	s = strings.TrimPrefix(strings.TrimPrefix(s, "fatal: "), "error: ")
	if s == "" {
		return ""
	}
	return `; git printed "` + s + `"`
}

// mask removes the token from git's output.
func (g *git) mask(s string) string {
	if token := g.j.r.Token; token != "" {
		if m := g.j.m.o.Mask; m != nil {
			s = m(token, s)
		}
		s = strings.ReplaceAll(s, token, "***")
	}
	return s
}

// words keeps the last lines of git's standard error, and reports its progress.
type words struct {
	say func(string)

	mu   sync.Mutex // guards the following fields
	cr   bool       // the line ended with \r, and the next byte shows whether that was a progress line
	line []byte
	kept []string
	said time.Time
}

const maxKept = 30

// Write implements io.Writer.
func (w *words) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.said.IsZero() {
		w.said = time.Now()
	}
	for _, c := range b {
		if w.cr {
			w.cr = false
			w.end(c != '\n' && c != '\r') // OpenSSH and some servers end lines with \r\n
			if c == '\n' {
				continue
			}
		}
		switch {
		case c == '\r':
			w.cr = true
		case c == '\n':
			w.end(false)
		case len(w.line) < 4*maxWords:
			w.line = append(w.line, c)
		}
	}
	return len(b), nil
}

func (w *words) end(progress bool) {
	text := oneLine(string(w.line))
	w.line = w.line[:0]
	if text == "" {
		return
	}
	if progress {
		if w.say != nil && time.Since(w.said) >= sayEvery {
			w.said = time.Now()
			w.say(text)
		}
		return
	}
	if len(w.kept) == maxKept {
		w.kept = append(w.kept[:0], w.kept[1:]...)
	}
	w.kept = append(w.kept, text)
}

func (w *words) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end(false)
	return w.kept
}

func (w *words) last() string {
	all := w.all()
	if len(all) == 0 {
		return ""
	}
	return all[len(all)-1]
}

// oneLine converts text to one valid line of limited length.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	return format.Clip(strings.TrimSpace(s), maxWords)
}

// limited discards output after a number of bytes.
type limited struct {
	w    io.Writer
	left int
}

// Write implements io.Writer.
func (l *limited) Write(b []byte) (int, error) {
	n := min(len(b), l.left)
	l.left -= n
	if _, err := l.w.Write(b[:n]); err != nil {
		return 0, err
	}
	return len(b), nil
}

// lock locks the mirror.
func (j *job) lock(ctx context.Context) (*os.File, error) {
	f, err := os.OpenFile(j.home+"/lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, failed("the lock of the repository's mirror could not be opened: "+plain(err), err)
	}
	now := j.m.o.Now()
	_ = os.Chtimes(f.Name(), now, now) // last use of the mirror, for the sweep
	err = filelock.Try(f)
	if errors.Is(err, filelock.ErrHeld) {
		j.r.Say("Waiting for another fetch of the same repository.")
		err = filelock.Wait(ctx, f, lockPause, 2*j.m.o.Timeout)
	}
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, filelock.ErrHeld):
		err = &Error{Class: agented.ClassNetwork, Text: "another fetch of the same repository has not ended in time: try again later"}
	case ctx.Err() != nil:
		err = ctx.Err()
	default:
		err = failed("the repository's mirror could not be locked: "+plain(err), err)
	}
	f.Close()
	return nil, err
}
