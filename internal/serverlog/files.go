package serverlog

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
)

// Files names the files of standard output and standard error where another program rotates
// them. launchd opens the files once, so without a reopen the log would continue in the renamed
// files.
type Files struct{ out, err string }

// ParseFiles accepts two names or none.
func ParseFiles(names []string) (Files, error) {
	switch len(names) {
	case 0:
		return Files{}, nil
	case 2:
		return Files{names[0], names[1]}, nil
	}
	return Files{}, agented.Errorf(agented.Invalid, "--log-file must be given twice: first the file of standard output, then that of standard error")
}

// Reopen reopens both streams on the files that now have the names, and creates missing files. A
// stream whose file cannot be opened stays unchanged.
func (l Files) Reopen() error {
	if l == (Files{}) {
		return nil
	}
	return errors.Join(redirect(l.out, unix.Stdout), redirect(l.err, unix.Stderr))
}

func redirect(path string, fd int) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Dup2(int(f.Fd()), fd)
}
