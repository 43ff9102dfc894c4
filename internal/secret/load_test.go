package secret_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/testrun"
)

// The test binary is also the server process that loads a key: it is started
// again with childMode as first argument.
const childMode = "load-key-as-a-child"

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == childMode {
		os.Exit(child(os.Args[2]))
	}
	testrun.Contain()
	os.Exit(m.Run())
}

// child reports that it is ready, waits for its standard input to close, loads
// the key with an empty umask and prints it.
func child(path string) int {
	syscall.Umask(0)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	key, err := secret.Load(secret.Options{Path: path})
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	fmt.Println(key.Reveal())
	return 0
}

func load(t *testing.T, o secret.Options) secret.Key {
	t.Helper()
	key, err := secret.Load(o)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestLoad_concurrent_starts(t *testing.T) {
	t.Parallel()
	for round := range testrun.Size(1, 1, 3) {
		path := filepath.Join(t.TempDir(), ".secret_key")
		var (
			out   []*bufio.Reader
			start []io.Closer
			cmds  []*exec.Cmd
		)
		for range 16 {
			cmd := exec.Command(os.Args[0], childMode, path)
			cmd.Stderr = os.Stderr
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			out, start, cmds = append(out, bufio.NewReader(stdout)), append(start, stdin), append(cmds, cmd)
		}
		for _, r := range out {
			if line, err := r.ReadString('\n'); line != "ready\n" {
				t.Fatalf("child said %q, %v", line, err)
			}
		}
		for _, s := range start {
			s.Close()
		}
		keys := make(map[string]int)
		for i, r := range out {
			line, _ := io.ReadAll(r)
			if err := cmds[i].Wait(); err != nil {
				t.Errorf("child %d: %v: %s", i, err, line)
			}
			keys[strings.TrimSpace(string(line))]++
		}
		if len(keys) != 1 {
			t.Errorf("round %d: %d different keys", round, len(keys))
		}
		for key := range keys {
			if len(key) != 64 || strings.Trim(key, "0123456789abcdef") != "" {
				t.Errorf("a key of %d characters, want 64 hexadecimal digits", len(key))
			}
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("mode %04o with an empty umask, want 0600", info.Mode().Perm())
		}
		entries, err := os.ReadDir(filepath.Dir(path))
		if err != nil || len(entries) != 1 {
			t.Errorf("left in the folder: %v, %v", entries, err)
		}
	}
}

// A key that another server creates between two checks of the name is a key,
// not a broken link.
func TestLoad_key_created_meanwhile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	made := filepath.Join(dir, "made")
	if err := os.WriteFile(made, []byte(strings.Repeat("0123456789abcdef", 4)), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range testrun.Size(100, 500, 3000) {
		path := filepath.Join(dir, fmt.Sprint(i))
		go os.Link(made, path)
		for {
			_, err := secret.Load(secret.Options{Path: path, ReadOnly: true})
			if err == nil {
				break
			}
			if !errors.Is(err, agented.NotFound) {
				t.Fatal(err)
			}
		}
		os.Remove(path)
	}
}

func TestLoad_stable(t *testing.T) {
	t.Parallel()
	o := secret.Options{Path: filepath.Join(t.TempDir(), ".secret_key")}
	first := load(t, o)
	before, err := os.ReadFile(o.Path)
	if err != nil {
		t.Fatal(err)
	}
	second := load(t, o)
	after, _ := os.ReadFile(o.Path)
	if first.Reveal() != second.Reveal() || !bytes.Equal(before, after) {
		t.Error("the second start has another key")
	}
	if second.Source() != o.Path || len(second.Warnings()) != 0 {
		t.Errorf("source %q, warnings %v", second.Source(), second.Warnings())
	}
}

func TestLoad_precedence(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	own := filepath.Join(dir, ".secret_key")
	provided := filepath.Join(dir, "provided")
	if err := os.WriteFile(provided, []byte("provided-by-the-container\r\n"), 0o444); err != nil {
		t.Fatal(err)
	}

	key := load(t, secret.Options{Value: "  as it is, spaces and all ", File: provided, Path: own})
	if key.Reveal() != "  as it is, spaces and all " || key.Source() != "environment" {
		t.Errorf("got %q from %q", key.Reveal(), key.Source())
	}
	key = load(t, secret.Options{Value: "another value of a key", ValueSource: "/x/.env:3", Path: own})
	if key.Source() != "/x/.env:3" {
		t.Errorf("source %q", key.Source())
	}
	key = load(t, secret.Options{File: provided, Path: own})
	if key.Reveal() != "provided-by-the-container" || key.Source() != provided {
		t.Errorf("got %q from %q", key.Reveal(), key.Source())
	}
	if _, err := os.Stat(own); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a key file was made although nobody needs it")
	}
}

func TestLoad_short_value(t *testing.T) {
	t.Parallel()
	key := load(t, secret.Options{Value: "short"})
	if key.Reveal() != "short" || len(key.Warnings()) != 1 || strings.Contains(key.Warnings()[0], "short;") {
		t.Errorf("key %v, warnings %q", key, key.Warnings())
	}
	if key := load(t, secret.Options{Value: "sixteen-or-more-"}); len(key.Warnings()) != 0 {
		t.Errorf("warnings %q", key.Warnings())
	}
}

func TestLoad_damaged_file(t *testing.T) {
	t.Parallel()
	good := strings.Repeat("0123456789abcdef", 4)
	for _, tc := range []struct {
		name, content, want string
		mode                fs.FileMode
	}{
		{"empty", "", "is empty", 0o600},
		{"only a newline", "\n", "is empty", 0o600},
		{"spaces", "   \n", "is empty", 0o600},
		{"NUL bytes", strings.Repeat("\x00", 65), "NUL bytes", 0o600},
		{"NUL bytes behind a key", good + "\x00", "NUL bytes", 0o600},
		{"binary", strings.Repeat("\xff\xfe", 32), "does not contain text", 0o600},
		{"two lines", good + "\n" + good + "\n", "more than one line", 0o600},
		{"cut off", good[:40], "40 of the 64 digits", 0o600},
		{"too short", "changeme\n", "only 8 characters", 0o600},
		{"space in front", " " + good, "begins or ends with a space", 0o600},
		{"huge", strings.Repeat("x", 5000), "too long", 0o600},
		{"readable by the group", good, "chmod 600", 0o640},
		{"readable by everybody", good, "chmod 600", 0o644},
		{"writable by everybody", good, "chmod 600", 0o602},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), ".secret_key")
			if err := os.WriteFile(path, []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tc.mode); err != nil {
				t.Fatal(err)
			}
			_, err := secret.Load(secret.Options{Path: path})
			if !errors.Is(err, agented.Invalid) || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path) {
				t.Fatalf("error %v, want one that names the file and says %q", err, tc.want)
			}
			if strings.Contains(err.Error(), good[:16]) {
				t.Errorf("the error shows the key: %v", err)
			}
			after, rerr := os.ReadFile(path)
			if rerr != nil || string(after) != tc.content {
				t.Error("the damaged file was changed")
			}
		})
	}
}

func TestLoad_not_a_file(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	folder := filepath.Join(dir, "folder")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	dangling := filepath.Join(dir, "dangling")
	if err := os.Symlink(filepath.Join(dir, "nowhere"), dangling); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{folder: "is a folder", dangling: "broken symbolic link", fifo: "not a regular file"} {
		if _, err := secret.Load(secret.Options{Path: path}); !errors.Is(err, agented.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("a key was made behind the link")
	}
}

func TestLoad_unreadable_file(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root reads everything")
	}
	path := filepath.Join(t.TempDir(), ".secret_key")
	if err := os.WriteFile(path, []byte("x"), 0o200); err != nil {
		t.Fatal(err)
	}
	if _, err := secret.Load(secret.Options{Path: path}); !errors.Is(err, agented.Invalid) || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("error %v", err)
	}
}

func TestLoad_missing_folder(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "missing", ".secret_key")
	_, err := secret.Load(secret.Options{Path: path})
	if !errors.Is(err, agented.Invalid) || !strings.Contains(err.Error(), "AGENTED_DATA_DIR") {
		t.Errorf("error %v", err)
	}
}

func TestLoad_provided_file(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	own := filepath.Join(dir, ".secret_key")
	check := func(want string) {
		t.Helper()
		_, err := secret.Load(secret.Options{File: file, Path: own})
		if !errors.Is(err, agented.Invalid) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "SECRET_KEY_FILE") {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	check("does not exist")
	for content, want := range map[string]string{"": "is empty", "short": "only 5 characters", "one line and\nanother line": "more than one line"} {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		check(want)
	}
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	check("changed by every user")
	if _, err := os.Stat(own); err == nil {
		t.Error("a key of its own was made instead")
	}
}

func TestLoad_read_only(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), ".secret_key")
	if _, err := secret.Load(secret.Options{Path: path, ReadOnly: true}); !errors.Is(err, agented.NotFound) {
		t.Errorf("error %v, want not_found", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a key was made")
	}
}

func TestKey_is_never_printed(t *testing.T) {
	t.Parallel()
	const text = "the-value-nobody-may-see-0123456789"
	key := load(t, secret.Options{Value: text})
	type outer struct {
		Key    secret.Key
		hidden secret.Key
		List   []secret.Key
		Ptr    *secret.Key
	}
	o := outer{Key: key, hidden: key, List: []secret.Key{key}, Ptr: &key}
	var b bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p"} {
		for _, v := range []any{key, &key, o, &o, map[string]secret.Key{"k": key}} {
			fmt.Fprintf(&b, verb+"\n", v)
		}
	}
	fmt.Fprintln(&b, errors.New(fmt.Sprint(key)))
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "key", key, "ptr", &key, "outer", o)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "key", key, "ptr", &key, "outer", o)
	enc := json.NewEncoder(&b)
	if err := enc.Encode(o); err != nil {
		t.Fatal(err)
	}
	if err := enc.Encode(map[string]any{"k": key}); err != nil {
		t.Fatal(err)
	}
	for _, leak := range []string{text, text[4:20], fmt.Sprintf("%x", text), fmt.Sprintf("%X", text), fmt.Sprint([]byte(text))} {
		if strings.Contains(b.String(), leak) {
			t.Errorf("output holds %q:\n%s", leak, b.String())
		}
	}
	if n := strings.Count(b.String(), key.Fingerprint()); n < 20 {
		t.Errorf("the fingerprint shows %d times only", n)
	}
	if len(key.Fingerprint()) != 12 {
		t.Errorf("fingerprint %q", key.Fingerprint())
	}
}
