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

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
)

// errNoRef says that the repository has nothing of the name that was asked for.
var errNoRef = errors.New("no such ref")

// tokenName is the variable in which git's credential helper finds the token.
const tokenName = "AGENTED_GIT_TOKEN"

// passed lists what git gets of the server's environment: who and where it is,
// and how it reaches the network.
var passed = []string{
	"HOME", "USER", "LOGNAME", "PATH", "TMPDIR", "SSH_AUTH_SOCK",
	"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
	"GIT_SSL_CAINFO", "GIT_SSL_CAPATH",
}

const (
	quickTime  = 5 * time.Minute // for what needs no network
	killAfter  = 5 * time.Second // from SIGTERM to SIGKILL
	sayEvery   = 10 * time.Second
	guardEvery = time.Second
	maxWords   = 300 // bytes of git's own words in a sentence
)

// git runs git for one job.
type git struct {
	j    *job
	env  []string
	args []string // before the command
	lock *os.File // inherited, so that the lock is held as long as a git of ours lives
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
	g.env = append(g.env,
		"LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_ATTR_NOSYSTEM=1",
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
		// For this host only: a redirect elsewhere gets nothing.
		g.args = append(g.args, "-c", "credential."+j.origin()+".helper="+helper(j.user(), "$"+tokenName))
	}
	return g
}

// local runs what needs no network.
func (g *git) local(ctx context.Context, dir string, args ...string) error {
	_, err := g.run(ctx, call{dir: dir, args: args, limit: quickTime})
	return err
}

// feed is local with something on standard input.
func (g *git) feed(ctx context.Context, dir, in string, args ...string) error {
	_, err := g.run(ctx, call{dir: dir, args: args, limit: quickTime, in: in})
	return err
}

// output is local that returns what git prints.
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

// call is one run of git.
type call struct {
	dir     string
	args    []string
	limit   time.Duration
	in      string
	network bool
}

// run runs git in a process group of its own and ends the whole group at the
// limit, when the disk fills up, or when ctx ends.
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
	cmd.Stdout = &limited{w: &out, left: 1 << 20}
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
	// What it started and left, such as a helper that hangs.
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	if err == nil {
		return out.String(), nil
	}
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, errTooLong):
		return "", &Error{Class: agented.ClassNetwork, Text: fmt.Sprintf("git %s took longer than %s and was ended%s", c.args[0], c.limit, quoted(g.mask(words.last()))), Cause: cause}
	case errors.Is(cause, errDiskFull):
		return "", failed("the disk with the workspaces is nearly full, so git "+c.args[0]+" was ended: remove what is not needed", cause)
	case ctx.Err() != nil:
		return "", ctx.Err()
	}
	return "", g.explain(c, words.all(), err)
}

var (
	errTooLong  = errors.New("took too long")
	errDiskFull = errors.New("the disk is nearly full")
)

// guard ends a fetch before the disk is full.
func (g *git) guard(c call, done <-chan struct{}, end context.CancelCauseFunc) {
	if !c.network || g.j.m.o.MinFree == 0 {
		return
	}
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	for {
		if free, err := freeBytes(c.dir); err == nil && free < g.j.m.o.MinFree {
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

func freeBytes(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}

// explain turns git's words into a sentence and a class.
func (g *git) explain(c call, said []string, err error) *Error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return failed("git "+c.args[0]+" failed: "+plain(err), err)
	}
	last := ""
	for _, line := range said {
		if strings.HasPrefix(line, "fatal: ") || strings.HasPrefix(line, "error: ") || last == "" || !strings.HasPrefix(last, "fatal: ") {
			last = line
		}
	}
	whole := strings.Join(said, "\n")
	last = g.mask(last)
	if !c.network {
		return failed(fmt.Sprintf("git %s failed%s", c.args[0], quoted(last)), err)
	}
	if has(whole, "couldn't find remote ref", "not our ref", "no such remote ref", "unadvertised object") {
		if strings.Contains(whole, "couldn't find remote ref HEAD") {
			return failed("the repository is empty, or has no default branch: name a ref", nil)
		}
		return &Error{Class: agented.ClassAgentFailure, Text: "the repository does not have what was asked for" + quoted(last), Cause: errNoRef}
	}
	e := &Error{Class: agented.ClassAgentFailure, Cause: err}
	switch {
	case has(whole, "could not resolve host", "couldn't resolve host", "could not resolve hostname", "connection refused", "connection timed out", "operation timed out",
		"failed to connect", "couldn't connect", "network is unreachable", "no route to host", "connection reset", "early eof", "unexpected disconnect", "rpc failed",
		"the requested url returned error: 5", "the requested url returned error: 429", "operation too slow", "empty reply from server", "the remote end hung up", "kex_exchange_identification", "gnutls_handshake", "ssl_connect"):
		e.Class = agented.ClassNetwork
		e.Text = "the repository could not be reached"
		if has(whole, "permission denied (publickey") {
			e.Class, e.Text = agented.ClassAgentFailure, "the repository refused the server's ssh key"
		}
	case has(whole, "authentication failed", "could not read username", "could not read password", "terminal prompts disabled", "the requested url returned error: 401",
		"the requested url returned error: 403", "permission denied (publickey", "host key verification failed", "invalid username or"):
		e.Text = "the repository refused the credentials"
		switch {
		case g.j.repo.Protocol == "ssh":
			e.Text = "the repository refused the server's ssh key, or its host key is not known here"
		case g.j.r.Token == "":
			e.Text = "the repository needs credentials, or does not exist: name a variable with a token as the workspace's credential"
		}
	case has(whole, "not found", "does not appear to be a git repository", "does not exist", "no such file or directory"):
		e.Text = "there is no such repository"
	case has(whole, "not allowed", "not supported"):
		e.Text = "the repository's address cannot be used"
	default:
		e.Text = "the repository could not be fetched"
	}
	e.Text += quoted(last)
	return e
}

func has(text string, any ...string) bool {
	text = strings.ToLower(text)
	return slices.ContainsFunc(any, func(s string) bool { return strings.Contains(text, s) })
}

// quoted is git's own last word in a sentence.
func quoted(s string) string {
	s = strings.TrimPrefix(strings.TrimPrefix(s, "fatal: "), "error: ")
	if s == "" {
		return ""
	}
	return `: git says "` + s + `"`
}

// mask takes the token out of git's words.
func (g *git) mask(s string) string {
	if token := g.j.r.Token; token != "" {
		if m := g.j.m.o.Mask; m != nil {
			s = m(token, s)
		}
		s = strings.ReplaceAll(s, token, "***")
	}
	return s
}

// words keeps the last lines that git prints on standard error, and passes on
// how far it has come.
type words struct {
	say func(string)

	mu   sync.Mutex // guards what follows
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
		if c != '\n' && c != '\r' {
			if len(w.line) < 4*maxWords {
				w.line = append(w.line, c)
			}
			continue
		}
		w.end(c == '\r')
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

// oneLine makes one bounded line of valid text.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	s = strings.TrimSpace(s)
	if len(s) > maxWords {
		s = strings.ToValidUTF8(s[:maxWords], "") + "…"
	}
	return s
}

// limited drops what comes after a number of bytes.
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

// lock waits for the mirror.
func (j *job) lock(ctx context.Context) (*os.File, error) {
	f, err := os.OpenFile(j.home+"/lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, failed("the lock of the repository's mirror could not be opened: "+plain(err), err)
	}
	now := j.m.o.Now()
	_ = os.Chtimes(f.Name(), now, now) // when the mirror was used last, for the sweep
	for told, deadline := false, time.Now().Add(2*j.m.o.Timeout); ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, failed("the repository's mirror could not be locked: "+plain(err), err)
		}
		if time.Now().After(deadline) {
			f.Close()
			return nil, &Error{Class: agented.ClassNetwork, Text: "another fetch of the same repository does not end"}
		}
		if !told {
			told = true
			j.r.Say("Waiting for another fetch of the same repository.")
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(lockPause):
		}
	}
}
