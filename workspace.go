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

// Workspace says where an agent of a trigger works: in a git repository, of
// which each execution gets a worktree of its own. A trigger has it or a
// working_dir, not both.
type Workspace struct {
	Repository string   `json:"repository"`           // https, ssh or file address; {placeholders} of the prompt are filled in
	Ref        string   `json:"ref,omitempty"`        // branch, tag or commit; empty: the event's commit, else the default branch
	Depth      int      `json:"depth,omitempty"`      // of the history; 0 is all
	Paths      []string `json:"paths,omitempty"`      // folders to check out; empty: all
	Credential string   `json:"credential,omitempty"` // name of a variable in env whose value is the token for https; never in an address or a log
}

// ResumePoint is where the first attempt of an execution goes on: in a session
// that another execution began. It is set by the server only.
type ResumePoint struct {
	Session   string      `json:"session"`
	Backend   string      `json:"backend"`
	Account   AccountID   `json:"account,omitempty"`
	Execution ExecutionID `json:"execution_id"` // in whose folder it worked
	Dir       string      `json:"dir"`          // working directory, absolute
}

// Protocols lists the ways in which a repository can be fetched. Which of them
// a server allows is a setting.
var Protocols = []string{"https", "http", "ssh", "file"}

// Repository is the address of a git repository, taken apart. It holds no
// secret: an address with a password is refused.
type Repository struct {
	Address  string // as git gets it
	Protocol string // one of Protocols
	Host     string // with its port; empty for file
	User     string // as the address names it; may be empty
}

// Bounds of a Workspace.
const (
	maxAddress       = 2000
	maxRef           = 250
	maxSparse        = 100
	maxDepth         = 1_000_000
	maxWorkspacePath = 500
)

// ParseRepository reads the address of a repository and refuses whatever a
// program on the way could take for something else: an option, a command, a
// protocol of git's that runs one, a secret.
func ParseRepository(address string) (Repository, error) {
	r := Repository{Address: address}
	refuse := func(format string, args ...any) (Repository, error) {
		return Repository{}, Errorf(Invalid, format, args...)
	}
	switch {
	case address == "":
		return refuse("the address of the repository is empty: give one such as https://github.com/owner/name.git")
	case len(address) > maxAddress || !utf8.ValidString(address) || hasControl(address) || strings.ContainsAny(address, " \\") ||
		strings.ContainsFunc(address, unicode.IsSpace):
		return refuse("the address of the repository is too long or holds white space or control characters: write a space as %%20")
	case strings.HasPrefix(address, "-"):
		return refuse("the address of the repository begins with -: give one such as https://github.com/owner/name.git")
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
		return refuse("the address of the repository has a ? or #: leave that part out")
	}
	plain, err := url.PathUnescape(path)
	if err != nil || hasControl(plain) || slices.Contains(strings.Split(plain, "/"), "..") || path == "/" {
		return refuse("the address of the repository has no path that can be used: end it with something like /owner/name.git")
	}
	if protocol == "file" {
		if authority != "" {
			return refuse("a file address names a host: write it as file:///path/to/repository.git")
		}
		return r, nil
	}
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		user := authority[:i]
		authority = authority[i+1:]
		if strings.Contains(user, ":") {
			return refuse("the address of the repository holds a password: put it into a variable and name that as the workspace's credential")
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

// parseSCP reads user@host:path, the short form of an ssh address.
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

// plainName reports whether s is a user's name that nothing takes for more.
func plainName(s string) bool {
	for i, c := range []byte(s) {
		if !letterOrDigit(c) && c != '_' && (i == 0 || c != '.' && c != '-' && c != '+') {
			return false
		}
	}
	return s != "" && len(s) <= 100
}

// plainHost reports whether s is a host name or address, perhaps with a port.
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

// ValidRef reports whether s can be the name of a branch, a tag or a commit:
// git's own rules, and nothing that begins with -.
func ValidRef(s string) bool {
	if s == "" || len(s) > maxRef || s == "@" || !utf8.ValidString(s) || hasControl(s) || strings.ContainsFunc(s, unicode.IsSpace) ||
		strings.ContainsAny(s, "~^:?*[\\\"'$`;&|<>(){}!") || strings.Contains(s, "..") || strings.HasPrefix(s, "-") || strings.HasSuffix(s, ".") {
		return false
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part[0] == '.' || part[0] == '-' || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return true
}

// validSparse reports whether s names a folder of a repository and nothing
// outside it.
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

// validateWorkspace refuses what cannot stand in a trigger. What placeholders
// will hold is looked at when they are filled in.
func (s *Spec) validateWorkspace(refuse func(path, format string, args ...any)) {
	w := s.Workspace
	if s.CeilingUSD < 0 || s.CeilingUSD > 1e6 || s.CeilingUSD != s.CeilingUSD {
		refuse("ceiling_usd", "must be from 0 (none) to 1000000")
	}
	if w == nil {
		return
	}
	if s.WorkingDir != "" {
		refuse("workspace", "cannot stand beside working_dir: remove one of them")
	}
	for _, text := range CheckTemplate(w.Repository) {
		refuse("workspace.repository", "%s", text)
	}
	for _, text := range CheckTemplate(w.Ref) {
		refuse("workspace.ref", "%s", text)
	}
	filled := len(fields(w.Repository)) > 0
	// A name stands for what is to come, so that the rest can be looked at.
	if stand := fillAll(w.Repository, "x"); filled && fields(w.Repository)[0].start == 0 {
		if w.Credential != "" {
			refuse("workspace.credential", "would go to whatever host the event names: write the host out, as in https://github.com/{repo_full_name}")
		}
	} else if r, err := ParseRepository(stand); err != nil {
		refuse("workspace.repository", "%s", Message(err))
	} else {
		if filled && r.Protocol == "file" {
			refuse("workspace.repository", "a file address cannot have placeholders: an event could name any folder of the server")
		}
		if filled && hostFilled(w.Repository) {
			refuse("workspace.repository", "the host cannot be a part with placeholders: write it out, as in https://github.com/{repo_full_name}")
		}
		if w.Credential != "" && r.Protocol != "https" && r.Protocol != "http" {
			refuse("workspace.credential", "is for https only: ssh uses the keys of the server's user")
		}
	}
	if w.Ref != "" && !ValidRef(fillAll(w.Ref, "x")) {
		refuse("workspace.ref", "is not the name of a branch, a tag or a commit")
	}
	if w.Depth < 0 || w.Depth > maxDepth {
		refuse("workspace.depth", "must be from 0 (all) to %d", maxDepth)
	}
	if len(w.Paths) > maxSparse {
		refuse("workspace.paths", "are too many: use at most %d", maxSparse)
	}
	for i, p := range w.Paths {
		if !validSparse(p) {
			refuse(fmt.Sprintf("workspace.paths.%d", i), "is not a folder of the repository: use a relative path such as web/src, without a slash at its ends")
		}
	}
	if w.Credential != "" {
		if _, ok := s.Env[w.Credential]; !ok {
			refuse("workspace.credential", "names no variable of env: put the token there under this name")
		}
	}
}

// fillAll puts one text in place of each placeholder.
func fillAll(template, text string) string {
	values := map[string]string{}
	for _, f := range fields(template) {
		values[f.name] = text
	}
	return Render(template, values)
}

// hostFilled reports whether a placeholder stands before the path of an
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

// Filled returns the workspace with its placeholders filled in. Without a ref
// it is the event's commit, if it has one. What does not make a repository's
// address or a ref then is refused.
func (w Workspace) Filled(values map[string]string) (Workspace, error) {
	named := len(fields(w.Repository)) > 0
	w.Repository = Render(w.Repository, values)
	r, err := ParseRepository(w.Repository)
	if err != nil {
		return w, err
	}
	if named && r.Protocol == "file" {
		return w, Errorf(Invalid, "the event names a folder of the server as its repository, which only a trigger may")
	}
	asked := w.Ref != ""
	w.Ref = Render(w.Ref, values)
	for _, name := range []string{"sha", VarPrefix + "sha", VarPrefix + "head_sha", VarPrefix + "commit"} {
		if w.Ref == "" && values[name] != "" {
			w.Ref = values[name]
		}
	}
	if w.Ref == "" && asked {
		return w, Errorf(Invalid, "the workspace's ref is empty once its placeholders are filled: the event names none")
	}
	if w.Ref != "" && !ValidRef(w.Ref) {
		return w, Errorf(Invalid, "%q cannot be the name of a branch, a tag or a commit", clip(w.Ref))
	}
	return w, nil
}

// Checkout is what an execution was given to work in.
type Checkout struct {
	Repository string
	Ref        string // as asked for; empty: the default branch
	Commit     string
	At         time.Time
}
