package clireal_test

import (
	"os"
	"testing"

	"github.com/agented/agented/internal/testrun"
)

func TestMain(m *testing.M) {
	testrun.Contain()
	os.Exit(m.Run())
}
