package shim

import (
	"os"

	"github.com/agented/agented"
)

// RecordLost records an attempt as lost if neither its shim nor its records exist, as in a
// restored backup, which contains only the log. exit contains the time and the end of that log.
func RecordLost(bundle string, exit agented.Exit) error {
	if err := os.MkdirAll(bundle, 0o700); err != nil {
		return err
	}
	if err := prepareExit(bundle); err != nil {
		return err
	}
	exit.Cause = agented.CauseLost
	return writeExit(bundle, exit)
}
