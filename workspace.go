package agented

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Workspace is a git repository for the executions of a trigger, each of which
// gets its own worktree. A trigger has either a workspace or a working_dir.
type Workspace struct {
	Repository string     `json:"repository"`           // https, ssh or file address; may contain {placeholders} of the prompt
	Ref        string     `json:"ref,omitempty"`        // branch, tag or commit; empty: the event's commit, otherwise the default branch
	Base       string     `json:"base,omitempty"`       // branch or commit fetched for comparison; empty: the base of the event
	Depth      int        `json:"depth,omitempty"`      // commits of history; 0 means all
	Paths      []string   `json:"paths,omitempty"`      // directories to check out; empty: all
	Credential Credential `json:"credential,omitempty"` // the token for https, which never appears in an address or a log
	Access     GitAccess  `json:"access,omitempty"`     // what the agent's git may do with a credential that the agent does not receive
}

// GitAccess is what the git of an agent may do with the credential of its workspace, which stays in
// the broker.
type GitAccess string

// The accesses. The empty one is none.
const (
	GitFetch GitAccess = "fetch"
	GitPush  GitAccess = "push"
)

// ResumePoint is where the first attempt of an execution resumes: in a session
// of an earlier execution. It is set only by the server.
type ResumePoint struct {
	Session   string      `json:"session"`
	Backend   string      `json:"backend"`
	Account   AccountID   `json:"account,omitempty"`
	Execution ExecutionID `json:"execution_id"` // the execution in whose folder the session worked
	Dir       string      `json:"dir"`          // working directory, absolute
	// Repository is the address of the repository that Dir is a checkout of; empty if it is none.
	Repository string `json:"repository,omitempty"`
}

// Protocols lists the protocols for fetching a repository. A setting of the
// server selects which of them are allowed.
var Protocols = []string{"https", "http", "ssh", "file"}

// Repository is the parsed address of a git repository. It contains no secret:
// an address with a password is rejected.
type Repository struct {
	Address  string // as passed to git
	Protocol string // one of Protocols
	Host     string // including the port; empty for file
	User     string // user in the address; may be empty
}

// Limits of a Workspace.
const (
	maxAddress       = 2000
	maxRef           = 1024
	maxSparse        = 100
	maxDepth         = 1_000_000
	maxWorkspacePath = 500
)

// ParseRepository parses the address of a repository. It rejects addresses that
// another program could interpret differently: as an option, a command, one of
// git's protocols that run a command, or a secret.
func ParseRepository(address string) (Repository, error) {
	r := Repository{Address: address}
	refuse := func(format string, args ...any) (Repository, error) {
		return Repository{}, Errorf(Invalid, format, args...)
	}
	switch {
	case address == "":
		return refuse("the address of the repository is empty: use one such as https://github.com/owner/name.git")
	case len(address) > maxAddress || !utf8.ValidString(address) || hasControl(address) || strings.ContainsAny(address, " \\") ||
		strings.ContainsFunc(address, unicode.IsSpace):
		return refuse("the address of the repository is too long or contains white space or control characters: write a space as %%20")
	case strings.HasPrefix(address, "-"):
		return refuse("the address of the repository begins with -: use one such as https://github.com/owner/name.git")
	}
	protocol, rest, ok := strings.Cut(address, "://")
	if !ok {
		return parseSCP(r)
	}
	r.Protocol = protocol
	if !slices.Contains(Protocols, protocol) {
		return refuse("a repository cannot be fetched by %q: use https, ssh or file", clip(protocol))
	}
	authority, path, _ := strings.Cut(rest, "/")
	path = "/" + path
	if strings.ContainsAny(rest, "?#") {
		return refuse("the address of the repository has a ? or #: remove that part")
	}
	plain, err := url.PathUnescape(path)
	if err != nil || hasControl(plain) || slices.Contains(strings.Split(plain, "/"), "..") || path == "/" {
		return refuse("the address of the repository has no usable path: end it with a path such as /owner/name.git")
	}
	if protocol == "file" {
		if authority != "" {
			return refuse("a file address must not name a host: write it as file:///path/to/repository.git")
		}
		return r, nil
	}
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		user := authority[:i]
		authority = authority[i+1:]
		if strings.Contains(user, ":") {
			return refuse("the address of the repository contains a password: put it into a variable of env and set the workspace's credential to the variable's name")
		}
		if !plainName(user) {
			return refuse("the user in the address of the repository is not a plain name")
		}
		r.User = user
	}
	if !plainHost(authority) {
		return refuse("the host in the address of the repository is not a plain host name")
	}
	r.Host = authority
	return r, nil
}

// parseSCP parses user@host:path, the short form of an ssh address.
func parseSCP(r Repository) (Repository, error) {
	before, path, ok := strings.Cut(r.Address, ":")
	user, host, named := strings.Cut(before, "@")
	bad := path == "" || path[0] == '-' || path[0] == ':' || slices.Contains(strings.Split(path, "/"), "..")
	if !ok || !named || bad || !plainName(user) || !plainHost(host) {
		return Repository{}, Errorf(Invalid, "%q is not the address of a repository: use https://host/owner/name.git, ssh://git@host/path, git@host:path or file:///path", clip(r.Address))
	}
	r.Protocol, r.Host, r.User = "ssh", host, user
	return r, nil
}

// plainName reports whether s is a user name without special characters.
func plainName(s string) bool {
	for i, c := range []byte(s) {
		if !letterOrDigit(c) && c != '_' && (i == 0 || c != '.' && c != '-' && c != '+') {
			return false
		}
	}
	return s != "" && len(s) <= 100
}

// plainHost reports whether s is a host name or address, with an optional port.
func plainHost(s string) bool {
	host, port, ported := s, "", false
	if v6, after, ok := strings.Cut(strings.TrimPrefix(s, "["), "]"); ok && strings.HasPrefix(s, "[") {
		if port, ported = strings.CutPrefix(after, ":"); !ported && after != "" || strings.Trim(v6, "0123456789abcdefABCDEF:.") != "" || v6 == "" {
			return false
		}
		host = "v6"
	} else {
		host, port, ported = strings.Cut(s, ":")
	}
	if ported && (port == "" || len(port) > 5 || strings.Trim(port, "0123456789") != "") {
		return false
	}
	for i, c := range []byte(host) {
		if !letterOrDigit(c) && (i == 0 || c != '.' && c != '-' && c != '_') {
			return false
		}
	}
	return host != "" && len(host) <= 253
}

func letterOrDigit(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// ValidRef reports whether s can be the name of a branch, a tag or a commit: a
// UTF-8 name that `git check-ref-format --branch` accepts, at most 1024 bytes.
func ValidRef(s string) bool {
	if s == "" || len(s) > maxRef || !utf8.ValidString(s) || strings.ContainsAny(s, " ~^:?*[\\\x7f") ||
		strings.ContainsFunc(s, func(r rune) bool { return r < ' ' }) ||
		strings.Contains(s, "..") || strings.Contains(s, "@{") || strings.HasPrefix(s, "-") || strings.HasSuffix(s, ".") {
		return false
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part[0] == '.' || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return true
}

// validSparse reports whether s is a path to a directory inside a repository.
func validSparse(s string) bool {
	if s == "" || len(s) > maxWorkspacePath || !utf8.ValidString(s) || hasControl(s) || strings.ContainsAny(s, "\\\"*?[]!#") || strings.TrimSpace(s) != s {
		return false
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part == "." || part == ".." || strings.EqualFold(part, ".git") || part[0] == '-' {
			return false
		}
	}
	return true
}

// validateWorkspace validates the workspace of a trigger. Values of
// placeholders are checked when they are filled in.
func (s *Spec) validateWorkspace(refuse func(path, format string, args ...any)) {
	w := s.Workspace
	if s.CeilingUSD < 0 || s.CeilingUSD > 1e6 || s.CeilingUSD != s.CeilingUSD {
		refuse("ceiling_usd", "must be from 0 (none) to 1000000")
	}
	if w == nil {
		if s.TrustRepo {
			refuse("trust_repository", "applies only with a workspace: remove it, or add a workspace")
		}
		return
	}
	if s.WorkingDir != "" {
		refuse("workspace", "cannot be combined with working_dir: remove one of them")
	}
	for _, text := range CheckTemplate(w.Repository) {
		refuse("workspace.repository", "%s", text)
	}
	for _, text := range CheckTemplate(w.Ref) {
		refuse("workspace.ref", "%s", text)
	}
	filled := len(fields(w.Repository)) > 0
	// A sample value for each placeholder lets the remaining address be
	// checked.
	if stand := fillAll(w.Repository, "x"); filled && fields(w.Repository)[0].start == 0 {
		if w.Credential != "" {
			refuse("workspace.credential", "would be sent to any host named in the event: write out the host, as in https://github.com/{repo_full_name}")
		}
	} else if r, err := ParseRepository(stand); err != nil {
		refuse("workspace.repository", "%s", Message(err))
	} else {
		if filled && r.Protocol == "file" {
			refuse("workspace.repository", "must not have placeholders in a file address: an event could name any folder of the server")
		}
		if filled && hostFilled(w.Repository) {
			refuse("workspace.repository", "must not have placeholders in the host: write out the host, as in https://github.com/{repo_full_name}")
		}
		if w.Credential != "" && r.Protocol != "https" && r.Protocol != "http" {
			refuse("workspace.credential", "applies to https only: ssh uses the keys of the server's user")
		}
	}
	if w.Ref != "" && !ValidRef(fillAll(w.Ref, "x")) {
		refuse("workspace.ref", "is not the name of a branch, a tag or a commit")
	}
	for _, text := range CheckTemplate(w.Base) {
		refuse("workspace.base", "%s", text)
	}
	if w.Base != "" && !ValidRef(fillAll(w.Base, "x")) {
		refuse("workspace.base", "is not the name of a branch or a commit")
	}
	if w.Depth < 0 || w.Depth > maxDepth {
		refuse("workspace.depth", "must be from 0 (all) to %d", maxDepth)
	}
	if len(w.Paths) > maxSparse {
		refuse("workspace.paths", "are too many: use at most %d", maxSparse)
	}
	for i, p := range w.Paths {
		if !validSparse(p) {
			refuse(fmt.Sprintf("workspace.paths.%d", i), "is not a folder of the repository: use a relative path such as web/src, without a slash at either end")
		}
	}
	if w.Access != "" && w.Access != GitFetch && w.Access != GitPush {
		refuse("workspace.access", "must be fetch or push, or absent: then the agent's git has no credential")
	} else if _, ref := RefersTo(string(w.Credential)); w.Access != "" && !ref {
		refuse("workspace.access", "requires credential: {secret: NAME}, because an agent can read the variables in its env")
	}
	if name, ref := RefersTo(string(w.Credential)); ref {
		if !ValidSecretName(name) {
			refuse("workspace.credential", "is not the name of a secret; agented secret list shows them")
		}
	} else if _, ok := s.Env[string(w.Credential)]; w.Credential != "" && !ok {
		refuse("workspace.credential", "is not a variable in env: add the token to env under this name, or name a secret with {secret: NAME}")
	}
}

// fillAll replaces every placeholder with the same text.
func fillAll(template, text string) string {
	values := map[string]string{}
	for _, f := range fields(template) {
		values[f.name] = text
	}
	return Render(template, values)
}

// hostFilled reports whether a placeholder occurs before the path of an
// address.
func hostFilled(template string) bool {
	at := fields(template)[0].start
	_, rest, ok := strings.Cut(template, "://")
	if !ok {
		return at < strings.IndexByte(template, ':')
	}
	begin := len(template) - len(rest)
	path := strings.IndexByte(rest, '/')
	return path < 0 || at < begin+path
}

// Expand returns the workspace with its placeholders filled in. Without a ref,
// it uses the event's commit, if there is one. It returns an error if the
// result is not a valid address or ref.
func (w Workspace) Expand(values map[string]string) (Workspace, error) {
	named := len(fields(w.Repository)) > 0
	w.Repository = Render(w.Repository, values)
	r, err := ParseRepository(w.Repository)
	if err != nil {
		return w, err
	}
	if named && r.Protocol == "file" {
		return w, Errorf(Invalid, "the event names a folder of the server as its repository: only a trigger may use a file address")
	}
	asked := w.Ref != ""
	w.Ref = Render(w.Ref, values)
	if w.Ref == "" {
		// Only an event selects the commit implicitly. A variable of a manual
		// run does not, unless the ref contains it: permission to run a trigger
		// does not include the choice of its code.
		w.Ref = values["sha"]
	}
	if w.Ref == "" && asked {
		return w, Errorf(Invalid, "the workspace's ref is empty after its placeholders are filled in: the event has no value for it")
	}
	if w.Ref != "" && !ValidRef(w.Ref) {
		return w, Errorf(Invalid, "%q cannot be the name of a branch, a tag or a commit", clip(w.Ref))
	}
	if w.Base = Render(w.Base, values); w.Base == "" {
		if w.Base = values["base_branch"]; w.Base == "" {
			w.Base = values["base_sha"]
		}
		if !ValidRef(w.Base) {
			w.Base = "" // nothing to compare with
		}
	}
	if w.Base != "" && !ValidRef(w.Base) {
		return w, Errorf(Invalid, "%q cannot be the name of the workspace's base branch", clip(w.Base))
	}
	return w, nil
}

// Checkout is the working copy of an execution.
type Checkout struct {
	Repository string
	Ref        string // as requested; empty: the default branch
	Commit     string
	At         time.Time
}
