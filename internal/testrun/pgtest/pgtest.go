// Package pgtest is test only: it starts PostgreSQL servers of their own for tests,
// and creates databases in them. A server ends with the process that started it.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Env selects the database of tests that can run on both: postgres, or empty for
// SQLite.
const Env = "AGENTED_TEST_DATABASE"

// Selected reports whether the tests run on PostgreSQL.
func Selected() bool { return os.Getenv(Env) == "postgres" }

// SkipSelected skips a test that cannot run on PostgreSQL, with the reason.
func SkipSelected(t testing.TB, reason string) {
	t.Helper()
	if Selected() {
		t.Skip("SQLite only: " + reason)
	}
}

// programs returns the folder of PostgreSQL's newest programs.
func programs() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) > 0 {
		slices.Sort(found)
		return filepath.Dir(found[len(found)-1]), nil
	}
	path, err := exec.LookPath("postgres")
	if err != nil {
		return "", errors.New("PostgreSQL is not installed")
	}
	return filepath.Dir(path), nil
}

// Cluster is a PostgreSQL server in a folder of its own, on a Unix socket.
type Cluster struct {
	dir     string
	bin     string
	owner   *syscall.Credential // nil: this user
	durable bool                // commits call fsync
	mu      sync.Mutex          // guards the fields below
	pid     int
	ended   chan struct{}
}

// Start starts a server that ends with the test. With durable, it waits for the
// disk as in production, so that it can be killed. The test is skipped if
// PostgreSQL is not installed.
func Start(t testing.TB, durable bool) *Cluster {
	t.Helper()
	c, err := newCluster(durable)
	if errors.Is(err, errMissing) {
		t.Skip("NOT CHECKED: " + err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.remove)
	return c
}

var errMissing = errors.New("PostgreSQL is not installed")

func newCluster(durable bool) (*Cluster, error) {
	bin, err := programs()
	if err != nil {
		return nil, errMissing
	}
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir, bin: bin, durable: durable}
	if err := c.initialize(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	if err := c.Start(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return c, nil
}

// initialize creates the files of the server. PostgreSQL refuses to run as root.
func (c *Cluster) initialize() error {
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			if u, err = user.Lookup("nobody"); err != nil {
				return err
			}
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		c.owner = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(c.dir, uid, gid); err != nil {
			return err
		}
	}
	if err := os.Chmod(c.dir, 0o755); err != nil {
		return err
	}
	// A locale that does not sort by bytes: the program must not depend on it.
	cmd := exec.Command(filepath.Join(c.bin, "initdb"), "-D", c.data(), "--no-sync", "--auth=trust", "--username=agented", "--encoding=UTF8", "--locale=C.UTF-8")
	cmd.Dir = c.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.owner}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

// Start starts the server, also after Kill, and waits until it accepts connections.
func (c *Cluster) Start() error {
	log, err := os.OpenFile(filepath.Join(c.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{
		"-D", c.data(), "-k", c.dir, "-c", "listen_addresses=", "-c", "max_connections=200", "-c", "shared_buffers=32MB",
		"-c", "autovacuum_naptime=1h", "-c", "max_wal_size=256MB",
	}
	if !c.durable {
		args = append(args, "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off")
	}
	cmd := exec.Command(filepath.Join(c.bin, "postgres"), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.owner, Setpgid: true}
	dieWithParent(cmd.SysProcAttr)
	started, ended := make(chan error, 1), make(chan struct{})
	go run(cmd, started, ended)
	if err := <-started; err != nil {
		return err
	}
	c.mu.Lock()
	c.pid, c.ended = cmd.Process.Pid, ended
	c.mu.Unlock()
	for deadline := time.Now().Add(2 * time.Minute); ; {
		conn, err := pgx.Connect(context.Background(), c.URL("postgres"))
		if err == nil {
			return conn.Close(context.Background())
		}
		select {
		case <-ended:
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("PostgreSQL ended:\n%s", text)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}

// Thread is the function of the goroutine that runs as long as a server, for checks
// of goroutines.
const Thread = "github.com/agented/agented/internal/testrun/pgtest.run"

// run is the thread that the server is a child of: it must live as long as the
// server, which is signalled when it ends.
func run(cmd *exec.Cmd, started chan<- error, ended chan<- struct{}) {
	runtime.LockOSThread()
	err := cmd.Start()
	started <- err
	if err == nil {
		_ = cmd.Wait()
		close(ended)
	}
}

// Kill kills all processes of the server, as a crash of the machine does.
func (c *Cluster) Kill() { c.end(syscall.SIGKILL) }

// Stop ends the server's connections and stops it.
func (c *Cluster) Stop() { c.end(syscall.SIGINT) }

func (c *Cluster) end(sig syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pid == 0 {
		return
	}
	if sig == syscall.SIGKILL {
		// Stopped, it starts no more processes while the others are killed: each has
		// a session of its own.
		_ = syscall.Kill(c.pid, syscall.SIGSTOP)
		for _, child := range children(c.pid) {
			_ = syscall.Kill(child, sig)
		}
	}
	_ = syscall.Kill(c.pid, sig)
	<-c.ended
	c.pid = 0
}

// children returns the child processes of a process.
func children(pid int) (list []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		text, _ := os.ReadFile(f)
		id, rest, _ := strings.Cut(string(text), " (")
		_, rest, _ = strings.Cut(rest[max(0, strings.LastIndexByte(rest, ')')):], " ")
		fields := strings.Fields(rest)
		if child, err := strconv.Atoi(id); err == nil && len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			list = append(list, child)
		}
	}
	return list
}

func (c *Cluster) remove() {
	c.end(syscall.SIGQUIT)
	os.RemoveAll(c.dir)
}

// URL returns the URL of a database of the server.
func (c *Cluster) URL(database string) string {
	return "postgres://agented@/" + database + "?host=" + c.dir
}

// Exec executes a statement in the database postgres.
func (c *Cluster) Exec(q string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	_, err = conn.Exec(ctx, q)
	return err
}

// Create creates an empty database that is removed at the end of the test, and
// returns its URL.
func (c *Cluster) Create(t testing.TB) string {
	t.Helper()
	return c.create(t, "template0")
}

// Copy creates a copy of a database to which nothing is connected, and returns its
// URL.
func (c *Cluster) Copy(t testing.TB, url string) string {
	t.Helper()
	_, name, _ := strings.Cut(url, "@/")
	name, _, _ = strings.Cut(name, "?")
	return c.create(t, name)
}

func (c *Cluster) create(t testing.TB, template string) string {
	t.Helper()
	shared.Lock()
	shared.made++
	name := fmt.Sprintf("t%d_%d", os.Getpid(), shared.made)
	shared.Unlock()
	if err := c.Exec("CREATE DATABASE " + name + " TEMPLATE " + template); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Exec("DROP DATABASE IF EXISTS " + name + " WITH (FORCE)") })
	return c.URL(name)
}

// shared is the server of this test binary.
var shared struct {
	sync.Mutex
	cluster  *Cluster
	err      error
	template string // database that New copies
	made     int
}

// Shared returns the server of this test binary, which loses its data in a crash.
// It ends with the process. The test is skipped if PostgreSQL is not installed.
func Shared(t testing.TB) *Cluster {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster == nil && shared.err == nil {
		shared.cluster, shared.err = newCluster(false)
	}
	if errors.Is(shared.err, errMissing) && !Selected() {
		t.Skip("NOT CHECKED: " + shared.err.Error())
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.cluster
}

// End stops the shared server. TestMain calls it last.
func End() {
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster != nil {
		shared.cluster.remove()
		shared.cluster = nil
	}
}

// New returns the URL of a new database with the current schema: a copy of the one
// that create made in the first call.
func New(t testing.TB, create func(url string) error) string {
	t.Helper()
	c := Shared(t)
	shared.Lock()
	if shared.template == "" {
		name := fmt.Sprintf("template_%d", os.Getpid())
		err := c.Exec("CREATE DATABASE " + name + " TEMPLATE template0")
		if err == nil {
			err = create(c.URL(name))
		}
		if err != nil {
			shared.Unlock()
			t.Fatal(err)
		}
		shared.template = name
	}
	template := shared.template
	shared.Unlock()
	return c.create(t, template)
}
