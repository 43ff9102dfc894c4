package github_test

import (
	"testing"

	"github.com/agented/agented/internal/testrun"
)

func TestMain(m *testing.M) {
	testrun.Contain()
	m.Run()
}
