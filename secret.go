package agented

import (
	"encoding/json"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// SecretName reports whether the name of an environment variable suggests that
// its value is a secret.
func SecretName(name string) bool {
	upper := strings.ToUpper(name)
	for _, word := range []string{"SECRET", "TOKEN", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "PRIVATE", "AUTH", "COOKIE", "DSN"} {
		if strings.Contains(upper, word) {
			return true
		}
	}
	for part := range strings.SplitSeq(upper, "_") {
		if part == "KEY" || part == "APIKEY" || part == "PASS" || part == "PWD" || part == "PAT" {
			return upper != "PWD" && upper != "OLDPWD"
		}
	}
	return false
}

// Secret is a named secret: a value that the server stores sealed, or fetches at the
// start of an attempt, and that variables, accounts and workspaces refer to by name.
type Secret struct {
	Name         string       // unique, ignoring case; never changes
	Source       SecretSource // where the value comes from
	Path         string       // of source file: absolute, or relative to the server's CREDENTIALS_DIRECTORY
	Command      []string     // of source command: program and arguments
	Triggers     []string     // names, patterns or ids of the triggers that may use it; empty: every execution
	Repositories []string     // patterns of the repositories whose executions may use it; empty: every execution
	Version      int          // current version, from 1
	Versions     []SecretVersion
	CreatedAt    time.Time
	CreatedBy    string
	UpdatedAt    time.Time
}

// SecretSource is where the value of a secret comes from. The values are stored and part
// of the API.
type SecretSource string

// The sources of secrets.
const (
	SecretStored  SecretSource = "stored"  // the database, sealed
	SecretFile    SecretSource = "file"    // a file, read at the start of each attempt
	SecretCommand SecretSource = "command" // the output of a command, run at the start of each attempt
)

// SecretVersion is one version of a secret: the value or the source that one change set.
// The last two are kept.
type SecretVersion struct {
	Number    int
	CreatedAt time.Time
	CreatedBy string
	UsedAt    time.Time   // start of the latest attempt that received it; zero: never
	UsedBy    ExecutionID // the execution of that attempt
}

// Limits of a Secret.
const (
	MinSecret          = 8        // bytes of a value; a shorter one would be masked in ordinary text
	MaxSecret          = 64 << 10 // bytes of a value
	KeptSecretVersions = 2
	maxSecretScope     = 100
	maxSecretArgs      = 50
)

// UsedAt returns when and by which execution any of the kept versions was last used.
func (s *Secret) UsedAt() (at time.Time, by ExecutionID) {
	for _, v := range s.Versions {
		if v.UsedAt.After(at) {
			at, by = v.UsedAt, v.UsedBy
		}
	}
	return at, by
}

// ValidSecretName reports whether name can be the name of a secret: 1 to 100 letters,
// digits and . _ -, beginning with a letter or a digit.
func ValidSecretName(name string) bool { return validAccountName(name) }

// Validate returns every invalid field of the secret with its fix. Fields are named as in
// the API.
func (s *Secret) Validate() []Field {
	var bad []Field
	refuse := func(path, text string) { bad = append(bad, Field{path, text}) }
	if !ValidSecretName(s.Name) {
		refuse("name", "must be 1 to 100 letters, digits and . _ -, beginning with a letter or a digit")
	}
	switch s.Source {
	case SecretFile:
		if s.Path == "" || len(s.Path) > 4096 || hasControl(s.Path) || slices.Contains(strings.Split(s.Path, "/"), "..") {
			refuse("file", "must be an absolute path, or the name of a file in the server's CREDENTIALS_DIRECTORY")
		}
	case SecretCommand:
		if len(s.Command) == 0 || len(s.Command) > maxSecretArgs || !filepath.IsAbs(s.Command[0]) && strings.ContainsRune(s.Command[0], '/') || s.Command[0] == "" {
			refuse("command", `must be a list with a program, absolute or on the server's PATH, and at most 49 arguments, for example ["vault","kv","get","-field=token","secret/ci"]`)
		}
		for i, a := range s.Command {
			if strings.ContainsRune(a, 0) || len(a) > 4096 {
				refuse(fmt.Sprintf("command.%d", i), "has a NUL byte or more than 4096 bytes")
			}
		}
	}
	for _, list := range []struct {
		path     string
		patterns []string
	}{{"triggers", s.Triggers}, {"repositories", s.Repositories}} {
		if len(list.patterns) > maxSecretScope {
			refuse(list.path, "has too many entries: use at most 100, or patterns with *")
		}
		for i, p := range list.patterns {
			if text := scopeFault(p); text != "" {
				refuse(fmt.Sprintf("%s.%d", list.path, i), text)
			} else if list.path == "repositories" && strings.Count(p, "/") < 1 {
				refuse(fmt.Sprintf("%s.%d", list.path, i), "must be owner/name, host/owner/name or the absolute path of a local repository; * stands for any part of a name")
			}
		}
	}
	return bad
}

// scopeFault returns what is wrong with a pattern of a scope, or "".
func scopeFault(pattern string) string {
	if pattern == "" || len(pattern) > MaxName || hasControl(pattern) || strings.TrimSpace(pattern) != pattern {
		return "must be a name or a pattern of 1 to 200 bytes without spaces at the ends"
	}
	if _, err := path.Match(pattern, ""); err != nil {
		return "is not a valid pattern: close its brackets"
	}
	return ""
}

// SecretValueFault returns why value cannot be the value of a secret, or "". It contains
// nothing of the value.
func SecretValueFault(value string) string {
	switch {
	case value == "":
		return "is empty"
	case len(value) < MinSecret:
		return fmt.Sprintf("has fewer than %d bytes: a value that short could not be masked in logs without masking ordinary text", MinSecret)
	case len(value) > MaxSecret:
		return fmt.Sprintf("has more than %d bytes", MaxSecret)
	case strings.ContainsRune(value, 0):
		return "has a NUL byte, which an environment variable cannot contain"
	}
	return ""
}

// OutOfScope returns why the execution may not use the secret, with the fix, or "". It does not
// name what is in the scope: people who may see the execution may not see other triggers.
func (s *Secret) OutOfScope(e *Execution) string {
	if len(s.Triggers) > 0 && !slices.ContainsFunc(s.Triggers, func(p string) bool {
		return e.Trigger != "" && (p == string(e.Trigger) || matches(strings.ToLower(p), strings.ToLower(e.TriggerName)))
	}) {
		who := fmt.Sprintf("trigger %q", e.TriggerName)
		if e.Trigger == "" {
			who = fmt.Sprintf("%q, which no trigger fired", e.TriggerName)
		}
		return fmt.Sprintf("secret %q is limited to other triggers and is not available to %s: add it with `agented secret set %s --keep-value --trigger NAME` (repeat --trigger for each), or use another secret",
			s.Name, who, s.Name)
	}
	if len(s.Repositories) == 0 {
		return ""
	}
	address := ""
	switch {
	case e.Snapshot.Workspace != nil:
		address = e.Snapshot.Workspace.Repository
	case e.Snapshot.Resume != nil: // a later turn works in the checkout of the first
		address = e.Snapshot.Resume.Repository
	}
	if r, err := ParseRepository(address); err == nil && slices.ContainsFunc(s.Repositories, r.Matches) {
		return ""
	}
	where := "an execution without a workspace"
	if address != "" {
		where = "repository " + address
	}
	return fmt.Sprintf("secret %q is limited to other repositories and is not available to trigger %q with %s: add it with `agented secret set %s --keep-value --repository OWNER/NAME` (repeat --repository for each), or use another secret",
		s.Name, e.TriggerName, where, s.Name)
}

// Matches reports whether the pattern of a scope covers the repository: owner/name for
// github.com, host/owner/name for another host, or an absolute path for a local one. Each
// * stands for any part of one name, and ** at the end for any path.
func (r Repository) Matches(pattern string) bool {
	name := r.Address
	if _, rest, ok := strings.Cut(name, "://"); ok {
		if name = rest; r.Protocol != "file" {
			_, name, _ = strings.Cut(rest, "/")
		}
	} else {
		_, name, _ = strings.Cut(name, ":")
	}
	name = strings.TrimSuffix(strings.TrimRight(name, "/"), ".git")
	if r.Protocol == "file" {
		return matches(pattern, name)
	}
	pattern, name = strings.ToLower(pattern), strings.ToLower(r.Host+"/"+strings.TrimLeft(name, "/"))
	if strings.Count(pattern, "/") == 1 {
		pattern = "github.com/" + pattern
	}
	return !strings.HasPrefix(pattern, "/") && matches(pattern, name)
}

// matches reports whether a valid pattern matches a name. A pattern that ends with /**
// matches every name below it.
func matches(pattern, name string) bool {
	if above, ok := strings.CutSuffix(pattern, "/**"); ok {
		parts := strings.Split(name, "/")
		n := strings.Count(above, "/") + 1
		if len(parts) <= n {
			return false
		}
		pattern, name = above, strings.Join(parts[:n], "/")
	}
	ok, err := path.Match(pattern, name)
	return pattern == name || ok && err == nil
}

// secretRefPrefix begins the stored form of a reference. A value that a user enters may
// not begin with it.
const secretRefPrefix = "secret:v1:"

// SecretRef returns the stored form of a reference to a named secret, which stands in
// place of a value.
func SecretRef(name string) string { return secretRefPrefix + name }

// RefersTo returns the name of the secret that a stored value refers to.
func RefersTo(value string) (name string, ok bool) { return strings.CutPrefix(value, secretRefPrefix) }

func badSecretRef(value string) bool {
	name, ok := RefersTo(value)
	return ok && !ValidSecretName(name)
}

// SecretRefs returns the names of the secrets that the spec refers to, by the path of the
// field that does.
func (s *Spec) SecretRefs() map[string]string {
	var out map[string]string
	add := func(path, value string) {
		if name, ok := RefersTo(value); ok {
			if out == nil {
				out = map[string]string{}
			}
			out[path] = name
		}
	}
	for name, value := range s.Env {
		if value != nil {
			add("env."+name, *value)
		}
	}
	if s.Workspace != nil {
		add("workspace.credential", string(s.Workspace.Credential))
	}
	return out
}

// SecretRefs returns the names of the secrets that the account's credentials refer to, by
// the path of the field that does.
func (a *Account) SecretRefs() map[string]string {
	out := map[string]string{}
	for variable, value := range a.Credentials {
		if name, ok := RefersTo(value); ok {
			out["credentials."+variable] = name
		}
	}
	return out
}

// Credential names the token with which a workspace is fetched: a variable of the spec's
// env, or a named secret, which the agent does not receive. In JSON it is the variable's
// name or {"secret": NAME}.
type Credential string

// MarshalJSON implements [json.Marshaler].
func (c Credential) MarshalJSON() ([]byte, error) {
	if name, ok := RefersTo(string(c)); ok {
		return json.Marshal(map[string]string{"secret": name})
	}
	return json.Marshal(string(c))
}

// UnmarshalJSON implements [json.Unmarshaler].
func (c *Credential) UnmarshalJSON(text []byte) error {
	var ref struct {
		Secret string `json:"secret"`
	}
	if json.Unmarshal(text, &ref) == nil && ref.Secret != "" {
		*c = Credential(SecretRef(ref.Secret))
		return nil
	}
	var variable string
	err := json.Unmarshal(text, &variable)
	if _, is := RefersTo(variable); is {
		return Errorf(Invalid, `workspace.credential is not the name of a variable: write {"secret": NAME} to use a named secret`)
	}
	*c = Credential(variable)
	return err
}
