package testrun_test

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/agented/agented/internal/testrun"
)

func TestDataFolder_removed_while_written(t *testing.T) {
	t.Parallel()
	var dir string
	written := make(chan struct{})
	t.Run("use", func(t *testing.T) {
		dir = testrun.DataFolder(t)
		sub := filepath.Join(dir, "executions")
		go func() {
			defer close(written)
			for i, end := 0, time.Now().Add(100*time.Millisecond); time.Now().Before(end); i++ {
				_ = os.MkdirAll(sub, 0o700)
				_ = os.WriteFile(filepath.Join(sub, strconv.Itoa(i)), nil, 0o600)
			}
		}()
	})
	<-written
	os.RemoveAll(dir) // what was written after a removal that succeeded
}
