package config_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/agented/agented/internal/config"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the generated files")

func TestGeneratedFiles(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	for path, want := range map[string]string{
		filepath.Join(root, ".env.example"):                          config.EnvExample(),
		filepath.Join(root, "docs", "reference", "configuration.md"): config.Reference(),
	} {
		if *update {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("%s is out of date; run go test ./internal/config -update\n%s", path, diff)
		}
	}
}

func TestEnvExample(t *testing.T) {
	t.Parallel()
	with, without := load(t, options(t, config.EnvExample())), load(t, options(t, ""))
	if len(with.Warnings) != 0 {
		t.Errorf("warnings %v", with.Warnings)
	}
	if diff := cmp.Diff(without.Show("", ""), with.Show("", "")); diff != "" {
		t.Error(diff)
	}
}
