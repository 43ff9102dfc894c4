package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// prompt is a client command on a pseudo-terminal.
type prompt struct {
	t      *testing.T
	cmd    *exec.Cmd
	tty    *os.File // the terminal side
	own    *os.File // the command's side
	screen *lockedBuffer
	ended  chan error
}

func atPrompt(t *testing.T, s *server, args ...string) *prompt {
	t.Helper()
	tty, own, err := pty.Open()
	if err != nil {
		t.Skipf("no pseudo-terminal is available: %v", err)
	}
	p := &prompt{t: t, cmd: exec.Command(binary, args...), tty: tty, own: own, screen: new(lockedBuffer), ended: make(chan error, 1)}
	p.cmd.Env, p.cmd.Dir = append(s.env, "TERM=xterm"), filepath.Join(s.dir, "cwd")
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = own, own, own
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 4096)
		for {
			n, err := tty.Read(buf)
			p.screen.Write(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	go func() { p.ended <- p.cmd.Wait() }()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		own.Close()
		tty.Close()
		<-read
	})
	return p
}

// blocked waits until the command has printed says and waits for standard input.
func (p *prompt) blocked(s *server, says string) {
	p.t.Helper()
	s.waitFor("the command to read standard input and to show "+says, func() bool {
		return strings.Contains(p.screen.String(), says) && readsInput(p.cmd.Process.Pid)
	})
}

// readsInput reports whether a thread of a process is in a read of descriptor 0.
func readsInput(pid int) bool {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err == nil && strings.HasPrefix(string(b), fmt.Sprintf("%d 0x0 ", unix.SYS_READ)) {
			return true
		}
	}
	return false
}

func (p *prompt) code() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(30 * time.Second):
		p.t.Fatalf("the command does not end; its screen: %q", p.screen.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *prompt) echoes() bool {
	p.t.Helper()
	state, err := unix.IoctlGetTermios(int(p.own.Fd()), unix.TCGETS)
	if err != nil {
		p.t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

func TestInterruptAtPrompt(t *testing.T) {
	t.Parallel()
	s := newConversationTest(t).server
	fifo := filepath.Join(s.dir, "pipe")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	s.call("POST", "/api/v1/triggers", sh("x", "true", nil), nil)
	for _, c := range []struct {
		name, says string
		secret     bool
		args       []string
	}{
		{name: "chat", says: "> ", args: []string{"chat", "helper"}},
		{name: "chat_stdin", args: []string{"chat", "helper", "-"}},
		{name: "run_stdin", args: []string{"run", "--backend", "claude", "-"}},
		{name: "message_send", args: []string{"message", "send", "helper"}},
		{name: "trigger_apply", args: []string{"trigger", "apply", "-f", "-"}},
		{name: "agent_apply", args: []string{"agent", "apply", "-f", "-"}},
		{name: "apply_named_pipe", args: []string{"trigger", "apply", "-f", fifo}},
		{name: "trigger_match", args: []string{"trigger", "match"}},
		{name: "credential", says: "ANTHROPIC_API_KEY", secret: true, args: []string{"account", "create", "claude", "work", "--credential", "ANTHROPIC_API_KEY"}},
		{name: "credential_update", says: "ANTHROPIC_API_KEY", secret: true, args: []string{"account", "update", "claude/default", "--credential", "ANTHROPIC_API_KEY"}},
		{name: "backup_passphrase", says: "Passphrase", secret: true, args: []string{"backup", filepath.Join(s.dir, "b.backup")}},
	} {
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			t.Run(c.name+"/"+strings.ReplaceAll(sig.String(), " ", "_"), func(t *testing.T) {
				p := atPrompt(t, s, c.args...)
				switch {
				case c.secret:
					s.waitFor("the prompt with the echo off", func() bool { return strings.Contains(p.screen.String(), c.says) && !p.echoes() })
				case slices.Contains(c.args, fifo):
					s.waitFor("the command to open the pipe", func() bool {
						w, err := os.OpenFile(fifo, os.O_WRONLY|syscall.O_NONBLOCK, 0)
						if err == nil {
							t.Cleanup(func() { w.Close() })
						}
						return err == nil
					})
				default:
					p.blocked(s, c.says)
				}
				if sig == syscall.SIGINT {
					if _, err := p.tty.Write([]byte{3}); err != nil {
						t.Fatal(err)
					}
				} else if err := p.cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
				if code := p.code(); code != 130 {
					t.Errorf("exit code %d, want 130; screen %q", code, p.screen.String())
				}
				if !p.echoes() {
					t.Error("the terminal shows no input any more")
				}
			})
		}
	}
}

func TestCredentialPrompt(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	p := atPrompt(t, s, "account", "create", "claude", "work", "--credential", "ANTHROPIC_API_KEY")
	s.waitFor("the prompt with the echo off", func() bool { return strings.Contains(p.screen.String(), "ANTHROPIC_API_KEY") && !p.echoes() })
	if _, err := p.tty.WriteString("sk-ant-typed-at-the-prompt\n"); err != nil {
		t.Fatal(err)
	}
	if code := p.code(); code != 0 || strings.Contains(p.screen.String(), "typed-at-the-prompt") {
		t.Errorf("exit code %d, screen %q", code, p.screen.String())
	}
}

func TestChatInterrupt(t *testing.T) {
	t.Parallel()
	k := newConversationTest(t)
	status := func(n int) func() bool {
		return func() bool {
			var got struct{ Items []struct{ Status string } }
			k.call("GET", "/api/v1/executions", nil, &got)
			return len(got.Items) >= n && got.Items[0].Status == "cancelled"
		}
	}
	t.Run("one_shot", func(t *testing.T) {
		for i, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			p := atPrompt(t, k.server, "chat", "helper", "please wait")
			k.waitFor("the answer to begin", func() bool { return strings.Contains(p.screen.String(), "turn ") })
			p.cmd.Process.Signal(sig)
			if code := p.code(); code != 130 {
				t.Errorf("exit code %d, screen %q", code, p.screen.String())
			}
			k.waitFor("the note on the screen", func() bool { return strings.Contains(p.screen.String(), "interrupted") })
			k.waitFor("the turn to be cancelled", status(i+1))
		}
	})
	t.Run("lines", func(t *testing.T) {
		p := atPrompt(t, k.server, "chat", "helper")
		p.blocked(k.server, "> ")
		say := func(text string) {
			if _, err := p.tty.WriteString(text); err != nil {
				t.Fatal(err)
			}
		}
		say("please wait\n")
		k.waitFor("the answer to begin", func() bool { return strings.Contains(p.screen.String(), "turn ") })
		say("\x03")
		k.waitFor("the interruption", func() bool { return strings.Contains(p.screen.String(), "interrupted") })
		say("and now\n") // the conversation continues
		k.waitFor("the prompt after the next answer", func() bool {
			_, after, answered := strings.Cut(p.screen.String(), "resumed resumed resumed")
			return answered && strings.HasSuffix(after, "> ")
		})
		say("\x03")
		if code := p.code(); code != 130 {
			t.Errorf("exit code %d, screen %q", code, p.screen.String())
		}
	})
}

func TestChat_end_of_input(t *testing.T) {
	t.Parallel()
	k := newConversationTest(t)
	p := atPrompt(t, k.server, "chat", "helper")
	p.blocked(k.server, "> ")
	if _, err := p.tty.Write([]byte{4}); err != nil {
		t.Fatal(err)
	}
	if code := p.code(); code != 0 {
		t.Errorf("exit code %d, screen %q", code, p.screen.String())
	}
}
