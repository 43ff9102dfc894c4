package chaos

import (
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/shim"
)

// server is a server in a temporary folder, and its load.
type server struct {
	o       Options
	program string
	dir     string
	addr    string
	key     string
	secret  string
	client  *client.Client
	log     *os.File
	cmd     *exec.Cmd

	fired    atomic.Int64
	repeated atomic.Int64

	mu       sync.Mutex                       // guards the following fields
	readers  []*reader                        //
	firings  map[string][]agented.ExecutionID // by acknowledged key
	problems []error                          // errors that no fault explains
	ready    []time.Duration
}

// reader is one client that follows one execution.
type reader struct {
	id    agented.ExecutionID
	tally lineTally
}

// settleTime is the maximum time to wait until all executions have ended.
const settleTime = 90 * time.Second

// Run runs the fault-injection test and returns its result.
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	if err := shim.AdoptOrphans(); err != nil {
		return nil, err
	}
	s, err := newServer(o)
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, s.cleanUp())
	}()
	o.Say(true, "chaos: seed %d, %d s, %d executions with %d lines per second, server at %s, folder %s", o.Seed, o.Seconds, o.Executions, o.Rate, s.addr, s.dir)
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	v := &Report{Seed: o.Seed, ProcessesLeft: []string{}}
	began := time.Now()
	numbers, err := s.load(ctx, v)
	if err != nil {
		return nil, err
	}
	v.Seconds = time.Since(began).Seconds()
	if o.Sabotage {
		if err := s.sabotage(ctx, numbers[0]); err != nil {
			return nil, fmt.Errorf("sabotage: %w", err)
		}
	}
	o.Say(false, "counting")
	if err := s.count(ctx, v, numbers); err != nil {
		return nil, err
	}
	if o.Keep {
		v.Folder = s.dir
	}
	o.Say(false, "")
	v.judge()
	return v, nil
}

func newServer(o Options) (*server, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &server{o: o, program: program, key: token(), secret: token(), firings: map[string][]agented.ExecutionID{}}
	if s.dir, err = os.MkdirTemp("", "agented-chaos-"); err != nil {
		return nil, err
	}
	for _, d := range []string{"home", "run", "agents", "cwd"} {
		err = errors.Join(err, os.Mkdir(filepath.Join(s.dir, d), 0o700))
	}
	// A settings file of its own keeps the server from using one of this machine.
	err = errors.Join(err, os.WriteFile(filepath.Join(s.dir, "agented.env"), nil, 0o600))
	l, err2 := net.Listen("tcp", "127.0.0.1:0")
	err = errors.Join(err, err2)
	if err == nil {
		s.addr = l.Addr().String()
		err = l.Close()
	}
	if err == nil {
		s.log, err = os.OpenFile(filepath.Join(s.dir, "server.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	}
	if err == nil {
		s.client, err = client.New("http://"+s.addr, s.key)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	return s, nil
}

func token() string {
	var b [24]byte
	crand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func (s *server) layout() agented.Layout {
	return agented.Layout{Root: filepath.Join(s.dir, "data")}
}
func (s *server) agents() string { return filepath.Join(s.dir, "agents") }

// launch starts a server without waiting for it.
func (s *server) launch() error {
	cmd := exec.Command(s.program, "serve", "--env-file", filepath.Join(s.dir, "agented.env"))
	cmd.Dir = filepath.Join(s.dir, "cwd")
	cmd.Env = []string{
		"PATH=" + config.SearchPath(),
		"HOME=" + filepath.Join(s.dir, "home"),
		"XDG_RUNTIME_DIR=" + filepath.Join(s.dir, "run"),
		"AGENTED_DATA_DIR=" + s.layout().Root,
		"AGENTED_BIND=" + s.addr,
		"AGENTED_API_KEY=" + s.key,
		"GITHUB_WEBHOOK_SECRET=" + s.secret,
		"AGENTED_ACCESS_LOG=off",
		"AGENTED_SHUTDOWN_TIMEOUT=2s",
		"LOG_FORMAT=json",
		fmt.Sprintf("AGENTED_MAX_CONCURRENT=%d", s.o.Executions+4),
	}
	cmd.Stdout, cmd.Stderr = s.log, s.log
	// Ctrl-C must reach this process only.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	s.cmd = cmd
	return nil
}

// start launches a server and waits until it is ready.
func (s *server) start(ctx context.Context) error {
	if err := s.launch(); err != nil {
		return err
	}
	return s.await(ctx, time.Now())
}

// await waits until the server is ready and records the time since began.
func (s *server) await(ctx context.Context, began time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := s.client.Ready(ctx)
		if err == nil {
			s.mu.Lock()
			s.ready = append(s.ready, time.Since(began))
			s.mu.Unlock()
			return nil
		}
		if !sleep(ctx, 5*time.Millisecond) {
			tail, _ := os.ReadFile(s.log.Name())
			return fmt.Errorf("the server is not ready after %s: %w\n%s", time.Since(began).Round(time.Second), err, tail[max(0, len(tail)-2000):])
		}
	}
}

// signal sends sig to the server and, unless sig is SIGSTOP or SIGCONT, waits until it has ended.
func (s *server) signal(sig syscall.Signal) {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(sig)
	if sig == syscall.SIGKILL || sig == syscall.SIGTERM {
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// sleep waits for d. It returns false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// injectFaults kills, freezes and restarts the server until the time is up, and leaves it
// running.
func (s *server) injectFaults(ctx context.Context, v *Report) error {
	random := rand.New(rand.NewPCG(s.o.Seed, 1))
	wait := func(low, high int) { sleep(ctx, time.Duration(low+random.IntN(high-low))*time.Millisecond) }
	began := time.Now()
	for end := began.Add(time.Duration(s.o.Seconds) * time.Second); time.Now().Before(end); {
		t := &v.Faults
		s.o.Say(false, "%3.0f s of %d: killed %d, frozen %d, restarted %d; fired %d", time.Since(began).Seconds(), s.o.Seconds, t.Killed, t.Frozen, t.Restarted, s.fired.Load())
		wait(150, 2000)
		switch n := random.IntN(10); {
		case n < 5:
			t.Killed++
			s.signal(syscall.SIGKILL)
		case n < 7: // kill it again, before it is ready or during recovery
			t.Killed += 2
			s.signal(syscall.SIGKILL)
			if err := s.launch(); err != nil {
				return err
			}
			wait(1, 300)
			s.signal(syscall.SIGKILL)
		case n < 8:
			t.Restarted++
			s.signal(syscall.SIGTERM)
		default:
			t.Frozen++
			s.signal(syscall.SIGSTOP)
			wait(100, 1000)
			if n == 8 {
				s.signal(syscall.SIGCONT)
			} else {
				t.Killed++
				s.signal(syscall.SIGKILL)
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if s.cmd == nil {
			if err := s.start(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}
