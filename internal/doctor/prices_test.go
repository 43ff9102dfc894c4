package doctor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPrices(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "prices.json")
	if err := os.WriteFile(file, []byte(`{"date":"2030-01-01","source":"a contract","models":[{"model":"our-model*","input":1,"output":4}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	use := []ModelUse{
		{"our-model-7", 3, 0, 3},         // in the file
		{"claude-opus-4-6", 9, 0, 0},     // in the built-in list
		{"claude-opus-9-9", 2, 0, 0},     // like the nearest one while it runs
		{"house-model", 4, 3, 0},         // unknown
		{"openrouter/reported", 5, 0, 0}, // its CLI reports the cost
		{"", 8, 8, 0},                    // not reported
	}
	o := newPlace(t, "AGENTED_PRICES="+file).options()
	o.Models = func(context.Context) ([]ModelUse, error) { return use, nil }
	list := Check(t.Context(), o)
	got := byName(list)
	expect(t, got["price of claude-opus-9-9"], Warn, "that of claude-opus-4-6", "AGENTED_PRICES")
	expect(t, got["price of house-model"], Warn, "3 of 4 attempts", "AGENTED_PRICES")
	reported := 0
	for _, f := range list {
		if strings.HasPrefix(f.ID, "prices.") {
			reported++
		}
	}
	if reported != 2 {
		t.Errorf("findings: %+v", list)
	}
	o.Models = func(context.Context) ([]ModelUse, error) { return nil, errors.New("no server") }
	if got := checkPrices(t.Context(), o); len(got) != 0 {
		t.Errorf("without a server: %+v", got)
	}
}
