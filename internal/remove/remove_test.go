package remove_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/agented/agented/internal/remove"
	"github.com/agented/agented/internal/testrun"
)

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o444); err != nil {
		t.Fatal(err)
	}
}

// asUser runs the named test of this binary as a user without privileges in a
// folder of its own: root ignores permissions. It returns that folder.
func asUser(t *testing.T, test string) (dir string, asRoot bool) {
	t.Helper()
	if os.Geteuid() != 0 || os.Getenv("REMOVE_TEST_DIR") != "" {
		if dir = os.Getenv("REMOVE_TEST_DIR"); dir == "" {
			dir = t.TempDir()
		}
		return dir, false
	}
	dir, err := os.MkdirTemp("/tmp", "remove-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "test")
	if err := testrun.WriteProgram(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "foreign", "tree", "built", "file")) // root's, in a folder that only root may write
	for _, p := range []string{dir, filepath.Join(dir, "foreign")} {
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(filepath.Join(dir, "foreign", "tree"), 65534, 65534); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "-test.run", "^"+test+"$", "-test.v")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "REMOVE_TEST_DIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir, true
}

func TestAll(t *testing.T) {
	dir, asRoot := asUser(t, "TestAll")
	if asRoot {
		return
	}
	t.Run("read-only folders", func(t *testing.T) {
		tree := filepath.Join(dir, "cache")
		write(t, filepath.Join(tree, "example.com", "m@v1", "f"))
		for _, p := range []string{"example.com/m@v1", "example.com", "."} {
			if err := os.Chmod(filepath.Join(tree, p), 0o500); err != nil {
				t.Fatal(err)
			}
		}
		if err := remove.All(tree); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(tree); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the folder is still there: %v", err)
		}
	})
	t.Run("closed folder", func(t *testing.T) {
		tree := filepath.Join(dir, "closed")
		write(t, filepath.Join(tree, "a", "f"))
		if err := os.Chmod(filepath.Join(tree, "a"), 0); err != nil {
			t.Fatal(err)
		}
		if err := remove.All(tree); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("links are removed and not followed", func(t *testing.T) {
		target := filepath.Join(dir, "target")
		write(t, filepath.Join(target, "f"))
		tree := filepath.Join(dir, "linked")
		write(t, filepath.Join(tree, "a", "f"))
		if err := os.Symlink(target, filepath.Join(tree, "a", "link")); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(target, 0o555); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(tree, "a"), 0o500); err != nil {
			t.Fatal(err)
		}
		if err := remove.All(tree); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(target)
		if err != nil || info.Mode().Perm() != 0o555 {
			t.Errorf("the target of the link: %v, %v", info, err)
		}
	})
	t.Run("missing", func(t *testing.T) {
		if err := remove.All(filepath.Join(dir, "nothing")); err != nil {
			t.Error(err)
		}
	})
	t.Run("files of another user stay, all else goes", func(t *testing.T) {
		tree := filepath.Join(dir, "foreign", "tree")
		if _, err := os.Lstat(tree); err != nil {
			t.Skip("needs root to make files of another user")
		}
		write(t, filepath.Join(tree, "aa", "f"))
		write(t, filepath.Join(tree, "zz", "f"))
		err := remove.All(tree)
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("got %v, want a permission error", err)
		}
		left, _ := os.ReadDir(tree)
		if len(left) != 1 || left[0].Name() != "built" {
			t.Errorf("left: %v, want only what belongs to root", left)
		}
	})
}
