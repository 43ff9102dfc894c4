package main

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
)

// logFiles are the files that standard output and standard error go to, where
// something renames them to keep them small: launchd opens them once and never
// again, so without us the log would go on into the renamed file.
type logFiles struct{ out, err string }

// parseLogFiles takes the two names, or none.
func parseLogFiles(names []string) (logFiles, error) {
	switch len(names) {
	case 0:
		return logFiles{}, nil
	case 2:
		return logFiles{names[0], names[1]}, nil
	}
	return logFiles{}, agented.Errorf(agented.Invalid, "--log-file belongs there twice: first the file of standard output, then that of standard error")
}

// reopen has both streams go to the files that have the names now. Files that are
// gone are made; one that cannot be opened leaves its stream as it was.
func (l logFiles) reopen() error {
	if l == (logFiles{}) {
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
