package config_test

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/config"
)

// TestChangedDefaults_documented compares the migration page for users of the
// Python product with the settings.
func TestChangedDefaults_documented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "coming-from-python.md"))
	if err != nil {
		t.Fatal(err)
	}
	type setting struct{ def, shown, old string }
	known, old := map[string]setting{}, map[string]string{}
	for f := range reflect.TypeFor[config.Config]().Fields() {
		name := f.Tag.Get("env")
		if name == "" {
			continue
		}
		known[name] = setting{f.Tag.Get("default"), f.Tag.Get("shown"), f.Tag.Get("old")}
		if o := f.Tag.Get("old"); o != "" {
			old[o] = name
		}
	}
	for _, cli := range registry.All() {
		for _, s := range cli.Rules().Settings {
			known[s.Name] = setting{old: s.Old}
			if s.Old != "" {
				old[s.Old] = s.Name
			}
		}
	}
	_, table, found := strings.Cut(string(text), "## Defaults that changed")
	if !found {
		t.Fatal("there is no table of defaults")
	}
	rows := 0
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| ([^|]+) \\| ([^|]+) \\| ([^|]+) \\|$").FindAllStringSubmatch(table, -1) {
		rows++
		s, there := known[m[1]]
		if !there {
			t.Errorf("%s is no setting", m[1])
			continue
		}
		want := "unset"
		switch {
		case s.shown != "":
			want = s.shown
		case s.def != "":
			want = "`" + s.def + "`"
		}
		if m[3] != want {
			t.Errorf("%s: the page says %s, the settings %s", m[1], m[3], want)
		}
	}
	if rows < 15 || rows != strings.Count(table, "\n| `") {
		t.Errorf("%d rows were read of %d", rows, strings.Count(table, "\n| `"))
	}

	// The page's statements about names are correct too.
	_, names, _ := strings.Cut(string(text), "## Names in the environment")
	names, _, _ = strings.Cut(names, "## Defaults")
	for line := range strings.Lines(names) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !strings.Contains(cells[1], "`") {
			continue
		}
		now := cells[2]
		for _, m := range regexp.MustCompile("`([A-Z_]+)`").FindAllStringSubmatch(cells[1], -1) {
			_, there := known[m[1]]
			switch {
			case strings.Contains(now, "same name") && !there:
				t.Errorf("%s is said to be there still", m[1])
			case strings.Contains(now, "gone") && there:
				t.Errorf("%s is said to be gone", m[1])
			case strings.Contains(now, "old name of") && !strings.Contains(now, "`"+old[m[1]]+"`"):
				t.Errorf("%s is an old name of %q, the page says%s", m[1], old[m[1]], now)
			}
		}
		for _, m := range regexp.MustCompile("`([A-Z_]+)`").FindAllStringSubmatch(now, -1) {
			if _, there := known[m[1]]; !there {
				t.Errorf("%s is named as what counts now, and is no setting", m[1])
			}
		}
	}
	for o, n := range old {
		if !strings.Contains(names, "`"+o+"`") || !strings.Contains(names, "`"+n+"`") {
			t.Errorf("the page does not name %s, the old name of %s", o, n)
		}
	}
}
