package contract

import (
	"os"
	"testing"

	"github.com/agented/agented/internal/testrun"
)

func TestMain(m *testing.M) {
	testrun.Contain()
	testrun.RunMoreInParallel()
	os.Exit(m.Run())
}
