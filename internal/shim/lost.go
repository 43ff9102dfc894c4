package shim

import (
	"os"

	"github.com/agented/agented"
)

// RecordLost writes down for an attempt that nobody keeps, and of which not even
// the records are here, that it was lost: a restored backup has its log and no
// more. exit says when, and where that log ends.
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
