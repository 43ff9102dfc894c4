package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra/doc"

	"github.com/agented/agented/internal/service"
)

var releaseFiles = flag.String("release-files", "", "write manual pages, completions, the unit and the settings file of the packages into this folder")

// TestReleaseFiles writes what packages ship besides the program. The release
// build calls it with -release-files.
func TestReleaseFiles(t *testing.T) {
	dir := *releaseFiles
	if dir == "" {
		dir = t.TempDir()
	}
	man := filepath.Join(dir, "man")
	if err := os.MkdirAll(man, 0o755); err != nil {
		t.Fatal(err)
	}
	root := newRoot()
	root.DisableAutoGenTag = true
	date := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) // the same input gives the same bytes
	if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "Agented", Manual: "Agented", Date: &date}, man); err != nil {
		t.Fatal(err)
	}
	for name, write := range map[string]func(string) error{
		"agented.bash": func(path string) error { return root.GenBashCompletionFileV2(path, true) },
		"_agented":     root.GenZshCompletionFile,
		"agented.fish": func(path string) error { return root.GenFishCompletionFile(path, true) },
	} {
		if err := write(filepath.Join(dir, name)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	spec := service.Packaged()
	for name, text := range map[string]string{"agented.service": spec.Unit(), "agented.env": spec.Settings()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	for name, want := range map[string]string{
		"man/agented.1":               ".TH",
		"man/agented-trigger-apply.1": "trigger apply",
		"agented.bash":                "__start_agented",
		"_agented":                    "#compdef agented",
		"agented.fish":                "complete -c agented",
		"agented.service":             "ExecStart=/usr/bin/agented serve --env-file /etc/agented/agented.env",
		"agented.env":                 "AGENTED_BIND=127.0.0.1:20000",
	} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%s lacks %q (%v)", name, want, err)
		}
	}
	if hidden, _ := filepath.Glob(filepath.Join(man, "agented-shim*")); len(hidden) > 0 {
		t.Errorf("hidden commands have manual pages: %v", hidden)
	}
}
