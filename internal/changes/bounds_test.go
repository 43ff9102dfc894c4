package changes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agented/agented/internal/redact"
)

// A folder that was moved and replaced by a link to it.
func TestMake_folder_becomes_link(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.write("docs/a", "1\n")
	s.write("docs/deep/b", "1\n")
	s.commit("first")
	s.take()
	if err := os.Rename(filepath.Join(s.dir, "docs"), filepath.Join(s.dir, "pages")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("pages", filepath.Join(s.dir, "docs")); err != nil {
		t.Fatal(err)
	}
	s.write("pages/a", "2\n")
	r := s.make(1)
	if r.Reason != "" || len(r.Files) == 0 {
		t.Errorf("%q, files %+v", r.Reason, r.Files)
	}
}

// An agent can make the index of its repository as large as it likes.
func TestCopyFile_large_index(t *testing.T) {
	t.Parallel()
	from, to := filepath.Join(t.TempDir(), "from"), filepath.Join(t.TempDir(), "to")
	writeFile(t, from, "")
	if err := os.Truncate(from, maxIndex+1); err != nil {
		t.Fatal(err)
	}
	if err := new(repo).copyFile(from, to); err == nil {
		t.Error("it was copied")
	}
	if _, err := os.Stat(to); err == nil {
		t.Error("a part of it remains")
	}
}

// Masking does not recognize a part of a secret, so subjects are masked before they are shortened.
func TestMake_secret_in_long_subject(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.write("a", "1\n")
	s.commit("first")
	s.take()
	s.write("a", "2\n")
	s.commit(strings.Repeat("x", 490) + " " + "very-secret-value-0123456789")
	s.m = redact.New([]string{"very-secret-value-0123456789"})
	r := s.make(1)
	if len(r.Commits) != 1 || strings.Contains(r.Commits[0].Subject, "very-sec") || len(r.Commits[0].Subject) > 520 {
		t.Errorf("commits %+v", r.Commits)
	}
}
