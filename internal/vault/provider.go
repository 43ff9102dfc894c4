package vault

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/searchpath"
)

// credentialsDirectory is the variable in which systemd names the folder with the
// credentials of a service (LoadCredential=).
const credentialsDirectory = "CREDENTIALS_DIRECTORY"

// readFile reads the file of a secret.
func (v *Vault) readFile(s *agented.Secret) (string, error) {
	// Viewers of an execution can read its reason, and must not learn the path from it.
	refuse := func(format string, args ...any) (string, error) {
		return "", agented.Errorf(agented.Invalid, "the file of secret %q "+format+" (`agented secret show %s` prints the path)", append(append([]any{s.Name}, args...), s.Name)...)
	}
	path := s.Path
	if !filepath.IsAbs(path) {
		dir, _ := v.o.Lookup(credentialsDirectory)
		if dir == "" {
			return refuse("has a path relative to CREDENTIALS_DIRECTORY, which the server does not have: add LoadCredential= to its systemd unit, or set an absolute path")
		}
		path = filepath.Join(dir, path)
	}
	// Without O_NONBLOCK, opening a pipe without a writer never returns.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return refuse("does not exist: create it, or change the path with `agented secret set %s --file PATH`", s.Name)
	case err != nil:
		return refuse("cannot be read (%v): make it readable for the user that runs the server", reason(err))
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return refuse("cannot be read (%v)", reason(err))
	case !info.Mode().IsRegular():
		return refuse("is not a regular file")
	case info.Mode().Perm()&0o002 != 0:
		return refuse("can be changed by every user: run `chmod o-w` on it")
	}
	data, err := io.ReadAll(io.LimitReader(f, agented.MaxSecret+1))
	if err != nil {
		return refuse("cannot be read (%v)", reason(err))
	}
	return string(data), nil
}

// reason returns the cause of an error of a file without its path.
func reason(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// passedVariables are the variables of the server that the command of a secret gets. It
// gets no other, so that it sees neither SECRET_KEY nor credentials of accounts.
var passedVariables = []string{"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", credentialsDirectory, "SSL_CERT_FILE", "SSL_CERT_DIR"}

// runCommand runs the command of a secret and returns what it prints. Errors contain
// nothing that it printed.
func (v *Vault) runCommand(ctx context.Context, s *agented.Secret) (string, error) {
	refuse := func(format string, args ...any) (string, error) {
		return "", agented.Errorf(agented.Invalid, "the command of secret %q "+format+" (run it as the server's user to see its output, which is not logged)", append([]any{s.Name}, args...)...)
	}
	ctx, cancel := context.WithTimeout(ctx, v.o.CommandTimeout)
	defer cancel()
	program := s.Command[0]
	search, _ := v.o.Lookup("PATH")
	if !filepath.IsAbs(program) {
		found, err := searchpath.Find(program, search)
		if err != nil {
			return refuse("cannot start: there is no program %q on the server's PATH", program)
		}
		program = found
	}
	cmd := exec.CommandContext(ctx, program, s.Command[1:]...)
	cmd.Args[0] = s.Command[0]
	cmd.Env = []string{}
	for _, name := range passedVariables {
		if value, ok := v.o.Lookup(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.Dir = "/"
	var out limited
	cmd.Stdout = &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// The kernel ends the command with the thread that started it, also if the server is killed.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	endWithParent(cmd.SysProcAttr)
	// Also its children. A child that left the group and holds the output open is waited
	// for only briefly.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	err := cmd.Run()
	exit, failed := errors.AsType[*exec.ExitError](err)
	switch {
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return refuse("took longer than %s and was stopped", v.o.CommandTimeout)
	case ctx.Err() != nil:
		return "", ctx.Err()
	case out.over:
		return refuse("printed more than %d bytes", agented.MaxSecret)
	case failed && exit.ExitCode() >= 0:
		return refuse("failed with exit code %d", exit.ExitCode())
	case failed:
		return refuse("was ended by a signal")
	case err != nil:
		return refuse("cannot run (%s)", strings.TrimSpace(reason(err).Error()))
	}
	return out.String(), nil
}

// limited keeps up to MaxSecret bytes and a line break, and fails beyond.
type limited struct {
	bytes.Buffer
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	if l.Len()+len(p) > agented.MaxSecret+2 {
		l.over = true
		return 0, errors.New("too much output")
	}
	return l.Buffer.Write(p)
}
