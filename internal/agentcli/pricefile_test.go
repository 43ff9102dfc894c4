package agentcli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
)

func TestPrices_file_takes_precedence(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "prices.json")
	n := func(v int64) *int64 { return &v }
	u := agented.Usage{InputTokens: n(1e6), OutputTokens: n(0)}
	for text, want := range map[string]string{
		`{"date":"2030-01-01","source":"ours","models":[{"model":"gpt-5","input":7,"output":7}]}`: "",
		`{`:                                     "AGENTED_PRICES",
		`{"models":[{"model":"x","input":-1}]}`: "AGENTED_PRICES",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := agentcli.ReadPrices(file)
		if want != "" {
			if agented.KindOf(err) != agented.Invalid || !strings.Contains(agented.Message(err), want) {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if got, _ := p.Cost("gpt-5", u); err != nil || got != 7 {
			t.Errorf("our price is %v, %v", got, err)
		}
		if _, ok := p.Cost("gemini-2.5-pro", u); !ok || p.Date != "2030-01-01" {
			t.Errorf("what comes with Agented is gone, or the date is %s", p.Date)
		}
	}
	if _, err := agentcli.ReadPrices(filepath.Join(t.TempDir(), "none")); agented.KindOf(err) != agented.Invalid {
		t.Errorf("no file: %v", err)
	}
	if p, err := agentcli.ReadPrices(""); err != nil || len(p.Models) == 0 {
		t.Errorf("without a setting: %v", err)
	}
}
