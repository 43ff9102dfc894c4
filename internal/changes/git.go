package changes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Git names the program and the PATH of its processes.
type Git struct {
	Program string // empty means git
	Path    string // empty means the usual folders
}

// attributes override every attribute of a repository: .git/info/attributes has precedence over the
// .gitattributes files, and "!" removes an attribute.
const attributes = "* !text !eol !crlf !ident !filter !working-tree-encoding !diff !merge !export-ignore !export-subst !whitespace\n"

// settings is the configuration of the private git directory.
const settings = `	bare = true
	fsmonitor = false
	hooksPath = /dev/null
	attributesFile = /dev/null
	excludesFile = /dev/null
	untrackedCache = false
	splitIndex = false
	autocrlf = false
	safecrlf = false
	quotePath = true
	fsync = none
	compression = 1
	looseCompression = 1
	bigFileThreshold = 8m
	logAllRefUpdates = false
[gc]
	auto = 0
[maintenance]
	auto = false
[submodule]
	recurse = false
[diff]
	submodule = short
	renameLimit = 1000
[pack]
	compression = 1
	threads = 1
`

// repo runs git with the private git directory.
type repo struct {
	git   Git
	dir   string // private git directory
	state *start
}

// configure writes the files of the private git directory. It is repeated before each use, because
// other processes of this user could change them.
func (r *repo) configure() error {
	config := "[core]\n\trepositoryformatversion = 0\n" + settings
	if r.state.SHA256 {
		config = "[core]\n\trepositoryformatversion = 1\n" + settings + "[extensions]\n\tobjectFormat = sha256\n"
	}
	for _, dir := range []string{"objects/info", "objects/pack", "refs/heads", "info"} {
		if err := os.MkdirAll(filepath.Join(r.dir, dir), 0o700); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"config": config, "HEAD": "ref: refs/heads/none\n", "info/attributes": attributes,
		"objects/info/alternates": quotePath(filepath.Join(r.state.Common, "objects")) + "\n",
	} {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return os.RemoveAll(filepath.Join(r.dir, "hooks"))
}

// quotePath quotes a path for the file of alternates.
func quotePath(path string) string {
	if !strings.ContainsAny(path, "\"\n\\#") {
		return path
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(path) + `"`
}

// env returns the whole environment of a git process.
func (g Git) env(home string) []string {
	path := g.Path
	if path == "" {
		path = "/usr/local/bin:/usr/bin:/bin"
	}
	return []string{
		"PATH=" + path, "HOME=" + home, "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_ATTR_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0", "GIT_NO_LAZY_FETCH=1", "GIT_NO_REPLACE_OBJECTS=1", "GIT_ALLOW_PROTOCOL=none",
		"GIT_PROTOCOL_FROM_USER=0", "GIT_PAGER=cat", "GIT_LFS_SKIP_SMUDGE=1", "GIT_CEILING_DIRECTORIES=/",
	}
}

// always are arguments of every call. They take precedence over the configuration.
var always = []string{"--no-pager", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=" + os.DevNull, "-c", "core.untrackedCache=false", "-c", "submodule.recurse=false"}

// call is one invocation of git.
type call struct {
	tree bool // with the working tree, in its folder
	args []string
	in   io.Reader
	out  io.Writer // nil collects the output, at most most bytes
	most int
	env  []string // in addition
	http bool     // http addresses are allowed
}

const killAfter = 5 * time.Second

// run runs git and returns its output.
func (r *repo) run(ctx context.Context, c call) ([]byte, error) {
	cmd := r.git.command(ctx, r.dir, c.args)
	cmd.Dir = r.dir
	cmd.Env = append(cmd.Env, "GIT_DIR="+r.dir, "GIT_INDEX_FILE="+filepath.Join(r.dir, "index"), "GIT_OBJECT_DIRECTORY="+filepath.Join(r.dir, "objects"))
	if c.tree {
		cmd.Dir = r.state.Root
		cmd.Env = append(cmd.Env, "GIT_WORK_TREE="+r.state.Root)
	}
	cmd.Env = append(append(cmd.Env, "PWD="+cmd.Dir), c.env...)
	if c.http {
		cmd.Env = append(cmd.Env, "GIT_ALLOW_PROTOCOL=http", "GIT_ASKPASS=/bin/false", "NO_PROXY=*", "no_proxy=*")
	}
	cmd.Stdin = c.in
	return runGit(ctx, cmd, c)
}

// command returns a git process in a process group of its own.
func (g Git) command(ctx context.Context, home string, args []string) *exec.Cmd {
	program := g.Program
	if program == "" {
		program = "git"
	}
	cmd := exec.CommandContext(ctx, program, append(slices.Clone(always), args...)...)
	cmd.Env = g.env(home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = killAfter
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// maxOutput is the default maximum size of collected output.
const maxOutput = 64 << 20

var errOutput = errors.New("git printed more than the limit")

func runGit(ctx context.Context, cmd *exec.Cmd, c call) ([]byte, error) {
	var out bytes.Buffer
	collect := &bounded{w: &out, left: c.most}
	if c.most == 0 {
		collect.left = maxOutput
	}
	cmd.Stdout = collect
	if c.out != nil {
		cmd.Stdout = c.out
	}
	words := &bounded{w: &bytes.Buffer{}, left: 4 << 10, discard: true}
	cmd.Stderr = words
	err := cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // processes that git left
	}
	switch {
	case err == nil:
		return out.Bytes(), nil
	case errors.Is(err, exec.ErrNotFound):
		return nil, errors.New("git is not installed, or not on the server's PATH")
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case collect.full:
		return nil, errOutput
	}
	text := strings.TrimSpace(words.w.(*bytes.Buffer).String())
	if _, after, ok := strings.Cut(text, "fatal: "); ok {
		text = after
	}
	text, _, _ = strings.Cut(text, "\n")
	return nil, fmt.Errorf("git %s failed: %s (%w)", c.args[0], printable(text), err)
}

// bounded passes on a number of bytes and then fails, or discards the rest.
type bounded struct {
	w       io.Writer
	left    int
	full    bool
	discard bool
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	n := min(len(p), b.left)
	b.left -= n
	if _, err := b.w.Write(p[:n]); err != nil {
		return 0, err
	}
	if n < len(p) {
		b.full = true
		if !b.discard {
			return n, errOutput
		}
	}
	return len(p), nil
}

// printable returns valid text of one line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// objectName reports whether s is the name of an object.
func objectName(s string) bool {
	return (len(s) == 40 || len(s) == 64) && strings.Trim(s, "0123456789abcdef") == ""
}
