package serverlog_test

import (
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/serverlog"
)

func TestParseFiles(t *testing.T) {
	t.Parallel()
	for _, names := range [][]string{{"a"}, {"a", "b", "c"}} {
		if _, err := serverlog.ParseFiles(names); agented.KindOf(err) != agented.Invalid {
			t.Errorf("%q: %v", names, err)
		}
	}
	none, err := serverlog.ParseFiles(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := none.Reopen(); err != nil {
		t.Errorf("no files: %v", err)
	}
	missing, err := serverlog.ParseFiles([]string{t.TempDir() + "/no/out", t.TempDir() + "/no/err"})
	if err != nil {
		t.Fatal(err)
	}
	if missing.Reopen() == nil {
		t.Error("a folder that does not exist is no error")
	}
}
