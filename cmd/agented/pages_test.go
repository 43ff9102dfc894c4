package main_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agented/agented/internal/testrun"
)

// testedPages are the pages whose command blocks are run, in this order and
// against one server. The quickstart comes first: it starts the server.
func testedPages(t *testing.T) []string {
	t.Helper()
	root := filepath.Join("..", "..")
	var pages []string
	for _, folder := range []string{"getting-started", "guides"} {
		found, err := filepath.Glob(filepath.Join(root, "docs", folder, "*.md"))
		if err != nil || len(found) == 0 {
			t.Fatalf("docs/%s has no pages: %v", folder, err)
		}
		pages = append(pages, found...)
	}
	quickstart := filepath.Join(root, "docs", "getting-started", "quickstart.md")
	pages = slices.DeleteFunc(pages, func(p string) bool {
		_, skip := pagesNotRun[filepath.Base(p)]
		return skip || p == quickstart
	})
	return append([]string{quickstart}, append(pages, filepath.Join(root, "README.md"))...)
}

// pagesNotRun are pages whose blocks cannot be run here, with the reason. The
// reason for a single block is a comment before it: <!-- not run: REASON -->.
var pagesNotRun = map[string]string{
	"installation.md": "its blocks need root and a release; scripts/test-package.sh runs them",
}

// pageBlock is one fenced block of a page with the comments before it:
//
//	<!-- file: NAME -->      the block is the content of this file
//	<!-- append: NAME -->    the block is added to this file
//	<!-- test: background --> the block starts the server and keeps running
//	<!-- in: DIR -->         the block is run in this directory
//	<!-- prints: TEXT -->    the output contains this text
//	<!-- not run: REASON --> the block is left out
type pageBlock struct {
	line     int
	language string
	notes    map[string]string
	text     string
}

var blockNote = regexp.MustCompile(`^\s*<!-- (file|append|test|in|prints|not run): (.*?) -->\s*$`)

// pageBlocks returns the fenced blocks of a page.
func pageBlocks(t *testing.T, page string) (out []pageBlock) {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	notes := map[string]string{}
	var open *pageBlock
	indent := ""
	for i, line := range strings.Split(string(b), "\n") {
		bare := strings.TrimLeft(line, " ")
		switch {
		case open != nil && strings.HasPrefix(bare, "```"):
			out = append(out, *open)
			open, notes = nil, map[string]string{}
		case open != nil:
			open.text += strings.TrimPrefix(line, indent) + "\n"
		case strings.HasPrefix(bare, "```"):
			indent = line[:len(line)-len(bare)]
			open = &pageBlock{i + 1, strings.TrimPrefix(bare, "```"), notes, ""}
		case strings.TrimSpace(line) != "":
			if m := blockNote.FindStringSubmatch(line); m != nil {
				notes[m[1]] = m[2]
			} else {
				notes = map[string]string{}
			}
		}
	}
	if open != nil {
		t.Fatalf("%s: the block at line %d has no end", page, open.line)
	}
	return out
}

// TestPages runs the command blocks of the pages for newcomers as they are
// written, with stand-ins for the agent CLIs. A block fails when its exit code is
// not 0 or its output lacks the text that a comment names.
func TestPages(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"curl", "git", "jq", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED: the blocks of the pages use %s, which is not installed", tool)
		}
	}
	p := newPages(t)
	for _, page := range testedPages(t) {
		name := strings.TrimSuffix(filepath.Base(page), ".md")
		ok := t.Run(name, func(t *testing.T) { p.run(t, page) })
		if !ok && name == "quickstart" {
			t.Fatal("the other pages need the server of the quickstart")
		}
	}
}

type pages struct {
	*server
	root string // stands for /, as far as the pages use it
}

func newPages(t *testing.T) *pages {
	s := prepare(t)
	p := &pages{s, filepath.Join(s.dir, "root")}
	bin, project := filepath.Join(s.dir, "bin"), filepath.Join(p.root, "srv", "project")
	for _, dir := range []string{bin, project, filepath.Join(p.root, "srv", "git")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		filepath.Join(bin, "claude"):        fakeClaude,
		filepath.Join(project, "README.md"): "A project.\n",
	} {
		if err := testrun.WriteProgram(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(binary, filepath.Join(bin, "agented")); err != nil {
		t.Fatal(err)
	}
	// A newcomer's machine: no address and no key in the environment.
	s.env = slices.DeleteFunc(s.env, func(v string) bool {
		return strings.HasPrefix(v, "AGENTED_URL=") || strings.HasPrefix(v, "AGENTED_API_KEY=") || strings.HasPrefix(v, "PATH=")
	})
	s.env = append(s.env, "PATH="+bin+":"+os.Getenv("PATH"), "ANTHROPIC_API_KEY=sk-ant-"+strings.Repeat("y", 40),
		"GIT_AUTHOR_NAME=ann", "GIT_AUTHOR_EMAIL=ann@example.org", "GIT_COMMITTER_NAME=ann", "GIT_COMMITTER_EMAIL=ann@example.org")
	if out, err := p.shell(t.Context(), project, "git init -q && git add . && git commit -qm 'First commit'"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return p
}

// here puts the test's address and folders in place of those that a page names.
func (p *pages) here(text string) string {
	text = strings.ReplaceAll(text, "127.0.0.1:20000", p.addr)
	return regexp.MustCompile(`(^|[^\w.])/srv/`).ReplaceAllString(text, "${1}"+p.root+"/srv/")
}

func (p *pages) shell(ctx context.Context, dir, script string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-eu", "-c", script)
	cmd.Dir, cmd.Env, cmd.WaitDelay = dir, p.env, 5*time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run runs the blocks of one page in a directory of its own.
func (p *pages) run(t *testing.T, page string) {
	dir := filepath.Join(p.dir, "pages", strings.TrimSuffix(filepath.Base(page), ".md"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"key.txt", "token.txt"} { // which the reader has
		if err := os.WriteFile(filepath.Join(dir, name), []byte("sk-ant-"+strings.Repeat("z", 40)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ran := 0
	for _, b := range pageBlocks(t, page) {
		where := fmt.Sprintf("%s:%d", filepath.Base(page), b.line)
		text := p.here(b.text)
		switch {
		case b.notes["not run"] != "":
			t.Logf("%s is not run: %s", where, b.notes["not run"])
		case b.notes["file"] != "" || b.notes["append"] != "":
			writeBlock(t, dir, b, text)
		case b.language != "sh":
		case b.notes["test"] == "background":
			p.serve(t, dir, text)
			ran++
		default:
			in := dir
			if d := b.notes["in"]; d != "" {
				in = p.here(d + "/")
			}
			out, err := p.shell(t.Context(), in, text)
			if err != nil {
				t.Fatalf("%s: %v\n%s\n%s", where, err, text, out)
			}
			if want := b.notes["prints"]; !strings.Contains(out, want) {
				t.Fatalf("%s: the output lacks %q:\n%s\n%s", where, want, text, out)
			}
			ran++
		}
	}
	if ran == 0 {
		t.Errorf("no block of %s is run", page)
	}
}

func writeBlock(t *testing.T, dir string, b pageBlock, text string) {
	t.Helper()
	name, flags := b.notes["file"], os.O_CREATE|os.O_TRUNC|os.O_WRONLY
	if name == "" {
		name, flags = b.notes["append"], os.O_APPEND|os.O_WRONLY
	}
	f, err := os.OpenFile(filepath.Join(dir, name), flags, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// serve starts the server with the page's own command.
func (p *pages) serve(t *testing.T, dir, script string) {
	cmd := exec.Command("sh", "-eu", "-c", "exec "+strings.TrimSpace(script))
	cmd.Dir, cmd.Env, cmd.WaitDelay = dir, p.env, 5*time.Second
	cmd.Stdout, cmd.Stderr = lockedWriter{&p.mu, &p.log}, lockedWriter{&p.mu, &p.log}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.cmd = cmd
	p.mu.Unlock()
	p.ready()
}
