package config_test

import (
	"testing"

	"github.com/agented/agented/internal/config"
)

func TestServiceManager(t *testing.T) {
	t.Setenv("LISTEN_FDS", "2")
	t.Setenv("HOME", "/somewhere")
	if got := config.ServiceManager("LISTEN_FDS"); got != "2" {
		t.Errorf("LISTEN_FDS is %q", got)
	}
	if got := config.ServiceManager("HOME"); got != "" {
		t.Errorf("HOME is %q", got)
	}
}

func TestHasExecutionToken(t *testing.T) {
	t.Setenv("AGENTED_EXECUTION_ID", "")
	t.Setenv("AGENTED_API_KEY", "secret")
	if config.HasExecutionToken() {
		t.Error("a key without an execution is not a token")
	}
	t.Setenv("AGENTED_EXECUTION_ID", "exec-1")
	if !config.HasExecutionToken() {
		t.Error("the token is not recognised")
	}
}
