package app

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/redact"
)

// Secrets that were read earlier stay masked while the database is unavailable, and the next
// attempt reads them again.
func TestMasker_keeps_known_secrets(t *testing.T) {
	root := t.TempDir()
	c, err := config.Load(config.Options{Environ: func() []string {
		return []string{
			"HOME=" + root, "AGENTED_DATA_DIR=" + root, "XDG_RUNTIME_DIR=" + root, "AGENTED_BIND=127.0.0.1:0", "AGENTED_API_KEY=a-key-of-the-environment",
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(t.Context(), Options{Config: c, Version: "test", Log: quiet, Masker: new(atomic.Pointer[redact.Masker])})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	const credential = "credential-of-an-account"
	id := agented.AccountID(agented.NewID("acc", time.Now()))
	sealed := auth.NewSealer(a.key).SealCredential(id, "ANTHROPIC_API_KEY", credential)
	if err := a.db.CreateAccount(t.Context(), &agented.Account{
		ID: id, Backend: agented.BackendClaude, Name: "work", Enabled: true, CreatedAt: time.Now(),
		Credentials: map[string]string{"ANTHROPIC_API_KEY": sealed},
	}, "test"); err != nil {
		t.Fatal(err)
	}
	a.setMasker() // as the API has it done
	for _, want := range []string{credential, "a-key-of-the-environment"} {
		if !slices.Contains(a.toMask(), want) {
			t.Errorf("%s is not masked", want)
		}
	}
	if err := a.db.Close(); err != nil {
		t.Fatal(err)
	}
	a.setMasker()
	if !slices.Contains(a.toMask(), credential) || !a.partial.Load() {
		t.Errorf("a database that does not answer unmasks what it holds, or nobody asks it again: partial %v", a.partial.Load())
	}
}
