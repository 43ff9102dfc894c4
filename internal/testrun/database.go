package testrun

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// template is the content of a new database of this test binary.
var template struct {
	sync.Mutex
	content []byte
}

// Database writes a new database with the current schema to path. The first
// call of a test binary lets create make one; all others copy its content,
// because running every migration takes longer than most tests.
func Database(t testing.TB, path string, create func(path string) error) {
	t.Helper()
	template.Lock()
	defer template.Unlock()
	if template.content == nil {
		model := filepath.Join(t.TempDir(), "template.db")
		if err := create(model); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(model)
		if err != nil {
			t.Fatal(err)
		}
		template.content = content
	}
	if err := os.WriteFile(path, template.content, 0o600); err != nil {
		t.Fatal(err)
	}
}
