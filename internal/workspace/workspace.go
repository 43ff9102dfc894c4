// Package workspace provides executions with git repositories: it keeps a mirror of each
// repository, and each execution gets a checkout of its own that borrows the mirror's objects.
//
// In the folder of the manager:
//
//	<hash>/lock         flock, held while the mirror is changed, also by git processes
//	<hash>/mirror.git   everything fetched so far
//	<hash>/used/<id>    one file per execution whose checkout borrows from the mirror
//
// A checkout is a repository with its own branches and settings, so an agent cannot change the
// mirror or another execution's checkout. This package never runs git in a checkout that an agent
// has used.
package workspace

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
)

// Options configures a Manager.
type Options struct {
	Layout    agented.Layout
	Protocols []string                         // allowed protocols; nil means https, ssh and file
	Timeout   time.Duration                    // of one fetch; 0 means DefaultTimeout
	MinFree   int64                            // free bytes on the disk below which a fetch is stopped; 0 disables the check
	Lookup    func(name string) (string, bool) // reads the server's environment; nil means empty
	Mask      func(secret, text string) string // masks a secret in git's output; nil replaces it literally
	Log       *slog.Logger                     // nil disables logging
	Now       func() time.Time                 // nil means time.Now
	program   string                           // path of git; set by tests
}

// Defaults of Options.
const (
	DefaultTimeout = 30 * time.Minute
	lockPause      = 50 * time.Millisecond
	manyPacks      = 40 // packs in a mirror before they are combined
)

// Manager creates and removes checkouts. Its methods are safe for concurrent use.
type Manager struct{ o Options }

// New returns a manager, without side effects.
func New(o Options) *Manager {
	if o.Protocols == nil {
		o.Protocols = []string{"https", "ssh", "file"}
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Lookup == nil {
		o.Lookup = func(string) (string, bool) { return "", false }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.program == "" {
		o.program = "git"
	}
	return &Manager{o}
}

// Request describes the checkout to create.
type Request struct {
	Execution agented.ExecutionID
	Workspace agented.Workspace // with placeholders filled
	Trusted   bool              // keep the repository's own agent files
	Token     string            // for https; empty means none
	Say       func(string)      // receives progress lines for the run log; nil discards them
}

// Checkout is the working copy of an execution.
type Checkout struct {
	Dir        string    `json:"dir"`
	Repository string    `json:"repository"`
	Ref        string    `json:"ref,omitempty"` // as requested
	Commit     string    `json:"commit"`
	Diff       string    `json:"diff,omitempty"` // changes of Commit since it branched off the base, truncated at maxDiff
	DiffCut    bool      `json:"diff_cut,omitempty"`
	Files      []string  `json:"files,omitempty"`    // changed files, at most maxDiffFiles
	Compared   string    `json:"compared,omitempty"` // commit at which it branched off the base; empty if unknown
	Mirror     string    `json:"mirror"`             // name of the mirror's folder
	At         time.Time `json:"at"`
	Fresh      bool      `json:"-"` // created by this call
}

// Error is the reason why there is no checkout.
type Error struct {
	Class agented.Class // network or agent_failure
	Text  string        // one sentence with git's last output, masked
	Cause error
}

func (e *Error) Error() string { return e.Text }

func (e *Error) Unwrap() error { return e.Cause }

// marker is the file that marks an execution's checkout as complete. It is outside of the agent's
// folder and written before the checkout is renamed into place: a checkout without it was never
// used.
const marker = "workspace.json"

// Existing returns the execution's checkout, if there is one.
func (m *Manager) Existing(id agented.ExecutionID) (Checkout, bool) {
	var c Checkout
	b, err := os.ReadFile(filepath.Join(m.o.Layout.Execution(id), marker))
	if err != nil || json.Unmarshal(b, &c) != nil || c.Dir == "" {
		return Checkout{}, false
	}
	info, err := os.Stat(c.Dir)
	return c, err == nil && info.IsDir()
}

// Prepare returns the execution's checkout, and creates it if there is none. The error is an
// *Error or that of ctx. It can be called again after a crash at any point.
func (m *Manager) Prepare(ctx context.Context, r Request) (Checkout, error) {
	if c, ok := m.Existing(r.Execution); ok {
		return c, nil
	}
	if r.Say == nil {
		r.Say = func(string) {}
	}
	repo, err := agented.ParseRepository(r.Workspace.Repository)
	if err != nil {
		return Checkout{}, failed(agented.Message(err), err)
	}
	if !contains(m.o.Protocols, repo.Protocol) {
		return Checkout{}, failed(fmt.Sprintf("the repository's address uses %s, which this server does not allow: AGENTED_WORKSPACE_PROTOCOLS lists the allowed protocols", repo.Protocol), nil)
	}
	if r.Workspace.Ref != "" && !agented.ValidRef(r.Workspace.Ref) {
		return Checkout{}, failed("the workspace's ref is not a valid name of a branch, a tag or a commit", nil)
	}
	j := &job{m: m, r: r, repo: repo, name: mirrorName(r.Workspace)}
	c, err := j.run(ctx)
	if ctx.Err() != nil {
		return Checkout{}, ctx.Err()
	}
	return c, err
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func failed(text string, cause error) *Error {
	return &Error{Class: agented.ClassAgentFailure, Text: text, Cause: cause}
}

// mirrorName names the mirror of a repository. Repositories with limited history, and those
// fetched with another credential, have mirrors of their own.
func mirrorName(w agented.Workspace) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%d\n%s", w.Repository, w.Depth, w.Credential))
	return hex.EncodeToString(sum[:12])
}

// root returns the folder of all mirrors.
func (m *Manager) root() string { return filepath.Join(m.o.Layout.Root, "workspaces") }

// job is a checkout in progress.
type job struct {
	m    *Manager
	r    Request
	repo agented.Repository
	name string
	home string // folder of the mirror
	git  *git
	base string // commit of the base; empty if there is none
}

func (j *job) run(ctx context.Context) (Checkout, error) {
	began := j.m.o.Now()
	j.home = filepath.Join(j.m.root(), j.name)
	if err := os.MkdirAll(filepath.Join(j.home, "used"), 0o700); err != nil {
		return Checkout{}, failed("the folder of the repository's mirror could not be created: "+plain(err), err)
	}
	j.r.Say("Preparing the workspace from " + j.repo.Address + wanted(j.r.Workspace.Ref) + ".")
	lock, err := j.lock(ctx)
	if err != nil {
		return Checkout{}, err
	}
	defer lock.Close()
	j.git = j.m.newGit(j, lock)
	// From here on the sweep does not remove the mirror.
	used := filepath.Join(j.home, "used", string(j.r.Execution))
	if err := os.WriteFile(used, nil, 0o600); err != nil {
		return Checkout{}, failed("the use of the repository's mirror could not be recorded: "+plain(err), err)
	}
	if err := j.openMirror(ctx); err != nil {
		return Checkout{}, err
	}
	commit, err := j.fetch(ctx)
	if err != nil {
		return Checkout{}, err
	}
	c := Checkout{
		Dir: j.m.o.Layout.Work(j.r.Execution), Repository: j.repo.Address, Ref: j.r.Workspace.Ref,
		Commit: commit, Mirror: j.name, At: j.m.o.Now().UTC(), Fresh: true,
	}
	if err := j.compare(ctx, &c); err != nil {
		return Checkout{}, err
	}
	if err := j.checkOut(ctx, c); err != nil {
		return Checkout{}, err
	}
	j.repack(ctx)
	j.r.Say(fmt.Sprintf("Checked out %s%s in %s.", commit, of(j.r.Workspace.Ref, commit), j.m.o.Now().Sub(began).Round(100*time.Millisecond)))
	return c, nil
}

func wanted(ref string) string {
	if ref == "" {
		return ""
	}
	return " at " + ref
}

func of(ref, commit string) string {
	if ref == "" {
		return " (the default branch)"
	}
	if strings.EqualFold(ref, commit) {
		return ""
	}
	return " (" + ref + ")"
}

// openMirror creates the mirror if there is none, and removes the leftovers of a crash. The
// caller holds the lock.
func (j *job) openMirror(ctx context.Context) error {
	mirror := j.mirror()
	if _, err := os.Stat(filepath.Join(mirror, "HEAD")); errors.Is(err, fs.ErrNotExist) {
		fresh, err := os.MkdirTemp(j.home, "new-")
		if err != nil {
			return failed("the repository's mirror could not be created: "+plain(err), err)
		}
		defer os.RemoveAll(fresh)
		if err := j.git.local(ctx, fresh, "init", "--quiet", "--bare", "--template=", "--", "."); err != nil {
			return err
		}
		if err := os.RemoveAll(mirror); err != nil {
			return failed("the repository's mirror could not be created: "+plain(err), err)
		}
		if err := os.Rename(fresh, mirror); err != nil {
			return failed("the repository's mirror could not be created: "+plain(err), err)
		}
	}
	leftovers(j.home, mirror)
	// Other processes of this user could change the configuration, so it is always rewritten.
	config := "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"
	if err := disk.ReplaceFile(filepath.Join(mirror, "config"), []byte(config), 0o600); err != nil {
		return failed("the repository's mirror could not be written: "+plain(err), err)
	}
	return nil
}

// leftovers removes files of an interrupted fetch. The caller holds the lock.
func leftovers(home, mirror string) {
	for _, pattern := range []string{
		filepath.Join(home, "new-*"),
		filepath.Join(mirror, "*.lock"), filepath.Join(mirror, "refs", "agented", "*.lock"),
		filepath.Join(mirror, "objects", "pack", "tmp_*"), filepath.Join(mirror, "objects", "pack", ".tmp-*"), filepath.Join(mirror, "objects", "??", "tmp_obj_*"),
		filepath.Join(mirror, "shallow_*"),
	} {
		found, _ := filepath.Glob(pattern) // the patterns are valid
		for _, path := range found {
			_ = os.RemoveAll(path)
		}
	}
	for _, name := range []string{"hooks", "info/attributes", "info/grafts", "config.worktree"} {
		_ = os.RemoveAll(filepath.Join(mirror, name))
	}
}

func (j *job) mirror() string { return filepath.Join(j.home, "mirror.git") }

// fetch fetches the requested ref into the mirror and returns its commit.
func (j *job) fetch(ctx context.Context) (string, error) {
	ref := j.r.Workspace.Ref
	switch {
	case ref == "":
		return j.fetchRef(ctx, "HEAD")
	case commitName(ref):
		return j.fetchCommit(ctx, ref)
	}
	var missing *Error
	candidates := []string{"refs/heads/" + ref, "refs/tags/" + ref}
	if strings.HasPrefix(ref, "refs/") {
		candidates = []string{ref}
	}
	for _, name := range candidates {
		commit, err := j.fetchRef(ctx, name)
		var e *Error
		if errors.As(err, &e) && errors.Is(err, errNoRef) {
			missing = e
			continue
		}
		return commit, err
	}
	if len(ref) >= 7 && strings.Trim(ref, "0123456789abcdef") == "" {
		return j.fetchAbbreviated(ctx, ref)
	}
	return "", failed(fmt.Sprintf("the repository has no branch or tag %q", ref), missing)
}

// fetchRef fetches one ref by its full name. If the repository is unreachable, no older state is
// used, because a branch may have moved.
func (j *job) fetchRef(ctx context.Context, name string) (string, error) {
	local := localRef(name)
	if err := j.git.fetch(ctx, j.mirror(), j.r.Workspace.Depth, j.repo.Address, "+"+name+":"+local); err != nil {
		return "", err
	}
	return j.commitOf(ctx, local)
}

// localRef returns the mirror's name of a ref of the repository.
func localRef(name string) string {
	sum := sha256.Sum256([]byte(name))
	return "refs/agented/" + hex.EncodeToString(sum[:12])
}

// fetchCommit fetches one commit. Some servers do not serve a commit by its id; then all branches
// and tags are fetched.
func (j *job) fetchCommit(ctx context.Context, commit string) (string, error) {
	commit = strings.ToLower(commit)
	err := j.git.fetch(ctx, j.mirror(), j.r.Workspace.Depth, j.repo.Address, "+"+commit+":refs/agented/"+commit)
	if err == nil {
		return j.commitOf(ctx, "refs/agented/"+commit)
	}
	var e *Error
	if !errors.As(err, &e) || ctx.Err() != nil {
		return "", err
	}
	if e.Class == agented.ClassNetwork {
		if have, haveErr := j.commitOf(ctx, commit); haveErr == nil && have == commit {
			j.r.Say("The repository could not be reached; using the commit from an earlier fetch.")
			return have, nil
		}
		return "", err
	}
	if !errors.Is(err, errNoRef) {
		return "", err
	}
	return j.fetchAbbreviated(ctx, commit)
}

// fetchAbbreviated fetches all branches and tags and searches for the commit.
func (j *job) fetchAbbreviated(ctx context.Context, commit string) (string, error) {
	err := j.git.fetch(ctx, j.mirror(), 0, j.repo.Address, "+refs/heads/*:refs/agented/all/heads/*", "+refs/tags/*:refs/agented/all/tags/*")
	if err != nil {
		return "", err
	}
	full, err := j.commitOf(ctx, commit)
	if err != nil {
		return "", failed(fmt.Sprintf("the repository has no branch, tag or commit %q", commit), err)
	}
	return full, nil
}

// commitOf returns the commit of a name in the mirror.
func (j *job) commitOf(ctx context.Context, name string) (string, error) {
	out, err := j.git.output(ctx, j.mirror(), "rev-parse", "--verify", "--quiet", "--end-of-options", name+"^{commit}")
	if err != nil {
		return "", failed("the fetched object is not a commit", err)
	}
	commit := strings.TrimSpace(out)
	if !commitName(commit) {
		return "", failed("the fetched object is not a commit", nil)
	}
	return commit, nil
}

// commitName reports whether s is a full commit id.
func commitName(s string) bool {
	return (len(s) == 40 || len(s) == 64) && strings.Trim(strings.ToLower(s), "0123456789abcdef") == ""
}

// plain returns the innermost error, without file names.
func plain(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	var link *os.LinkError
	if errors.As(err, &link) {
		return link.Err.Error()
	}
	return err.Error()
}
