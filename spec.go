package agented

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
)

// hasControl reports whether s has a control character, which has no place in
// a name, an argument that people read, or an environment variable's name.
func hasControl(s string) bool { return strings.IndexFunc(s, unicode.IsControl) >= 0 }

// Validate returns every field of the spec that cannot stand, each with the
// mend.
func (s *Spec) Validate() []Field {
	var bad []Field
	refuse := func(path, format string, args ...any) {
		bad = append(bad, Field{path, fmt.Sprintf(format, args...)})
	}
	agent := false
	switch {
	case s.Agent != "":
		s.validateByAgent(refuse)
	case s.Backend == "":
		refuse("backend", "is required: use one of %s", strings.Join(Backends, ", "))
	case !slices.Contains(Backends, s.Backend):
		refuse("backend", "is not known: use one of %s%s", strings.Join(Backends, ", "), suggest(s.Backend, Backends))
	default:
		agent = s.Backend != BackendCommand
	}
	if s.Agent == "" && s.Backend == BackendCommand {
		s.validateCommand(refuse)
	}
	if agent {
		s.validateAgent(refuse)
	}
	for i, p := range s.Paths {
		if !filepath.IsAbs(p) || hasControl(p) {
			refuse(fmt.Sprintf("paths.%d", i), "must be an absolute path")
		}
	}
	if s.WorkingDir != "" && (!filepath.IsAbs(s.WorkingDir) || hasControl(s.WorkingDir)) {
		refuse("working_dir", "must be an absolute path")
	}
	if s.TimeoutSeconds < 0 || s.TimeoutSeconds > MaxTimeoutSeconds {
		refuse("timeout_seconds", "must be from 0 (no limit) to %d", MaxTimeoutSeconds)
	}
	if s.SilenceSeconds < 0 || s.SilenceSeconds > MaxTimeoutSeconds {
		refuse("silence_timeout_seconds", "must be from 0 (no limit) to %d", MaxTimeoutSeconds)
	}
	if s.MaxConcurrent < 0 || s.MaxConcurrent > 10000 {
		refuse("max_concurrent", "must be from 0 (only the node's limit) to 10000")
	}
	if !slices.Contains([]Overlap{OverlapQueue, OverlapSkip, OverlapReplace}, s.Overlap) {
		refuse("overlap", "must be queue, skip or replace")
	}
	s.validateWorkspace(refuse)
	s.validateAccounts(refuse)
	bad = append(bad, s.Retry.Validate()...)
	for name, value := range s.Env {
		path := "env." + clip(name)
		switch {
		case !validEnvName(name):
			refuse(path, "is not a variable name: use letters, digits and _, not starting with a digit")
		case strings.HasPrefix(name, "AGENTED_"):
			refuse(path, "is reserved: names that start with AGENTED_ are set by the server")
		case value != nil && strings.ContainsRune(*value, 0):
			refuse(path, "has a NUL byte, which no environment can hold")
		}
	}
	slices.SortStableFunc(bad, func(a, b Field) int {
		if strings.HasPrefix(a.Path, "env.") && strings.HasPrefix(b.Path, "env.") {
			return strings.Compare(a.Path, b.Path)
		}
		return 0
	})
	return bad
}

// validateByAgent is for a spec that leaves its prompt and backend to an agent.
func (s *Spec) validateByAgent(refuse func(path, format string, args ...any)) {
	if len(s.Agent) > MaxAgentName || hasControl(s.Agent) {
		refuse("agent", "is not the name of an agent")
	}
	for _, f := range []struct {
		path string
		set  bool
	}{
		{"backend", s.Backend != ""},
		{"command", len(s.Command) > 0},
		{"tty", s.TTY},
		{"model", s.Model != ""},
		{"permission", s.Permission != ""},
		{"args", len(s.Args) > 0},
		{"account", s.Account != ""},
		{"fallback", len(s.Fallback) > 0},
		{"working_dir", s.WorkingDir != ""},
		{"workspace", s.Workspace != nil},
		{"paths", len(s.Paths) > 0},
		{"env", len(s.Env) > 0},
	} {
		if f.set {
			refuse(f.path, "comes from the agent: remove it, or remove agent")
		}
	}
	if len(s.Prompt) > MaxPrompt {
		refuse("prompt", "is too long: use at most %d bytes", MaxPrompt)
	}
	for _, f := range CheckTemplate(s.Prompt) {
		refuse("prompt", "%s", f)
	}
}

// maxFallback bounds a chain.
const maxFallback = 10

// validateAccounts refuses an account or a fallback that cannot stand. Whether
// an account is there is asked when an attempt needs it.
func (s *Spec) validateAccounts(refuse func(path, format string, args ...any)) {
	check := func(path string, c Choice) {
		if c.Account != "" && !validAccountName(string(c.Account)) {
			refuse(path+"account", "is not an account's id or name")
		}
		if hasControl(c.Model) || strings.HasPrefix(c.Model, "-") || len(c.Model) > 200 {
			refuse(path+"model", "is not a model name: it may not start with - or hold control characters")
		}
	}
	if s.Backend == BackendCommand {
		if s.Account != "" {
			refuse("account", "does not apply to backend command: remove it")
		}
		if len(s.Fallback) > 0 {
			refuse("fallback", "does not apply to backend command: remove it")
		}
		return
	}
	check("", Choice{Account: s.Account})
	if len(s.Fallback) > maxFallback {
		refuse("fallback", "is too long: name at most %d", maxFallback)
		return
	}
	for i, c := range s.Fallback {
		path := fmt.Sprintf("fallback.%d.", i)
		if ConfigVariable(c.Backend) == "" {
			refuse(path+"backend", "must be one of %s", strings.Join(Backends[1:], ", "))
		}
		check(path, c)
	}
}

func (s *Spec) validateCommand(refuse func(path, format string, args ...any)) {
	if len(s.Command) == 0 || s.Command[0] == "" {
		refuse("command", `is required: give the program and its arguments as a list, for example ["sh","-c","echo hi"]`)
	}
	for i, a := range s.Command {
		if strings.ContainsRune(a, 0) {
			refuse(fmt.Sprintf("command.%d", i), "has a NUL byte, which no argument can hold")
		}
	}
	if s.Model != "" {
		refuse("model", "does not apply to backend command: remove it")
	}
	if s.Permission != "" {
		refuse("permission", "does not apply to backend command: remove it")
	}
	if len(s.Args) > 0 {
		refuse("args", "does not apply to backend command: put the arguments in command")
	}
	for _, f := range CheckTemplate(s.Prompt) {
		refuse("prompt", "%s", f)
	}
}

func (s *Spec) validateAgent(refuse func(path, format string, args ...any)) {
	if len(s.Command) > 0 {
		refuse("command", "applies to backend command only: use prompt, or set backend to command")
	}
	if s.TTY {
		refuse("tty", "applies to backend command only: remove it")
	}
	switch {
	case strings.TrimSpace(s.Prompt) == "":
		refuse("prompt", "is required for backend %s: say what the agent shall do", s.Backend)
	case len(s.Prompt) > MaxPrompt:
		refuse("prompt", "is too long: use at most %d bytes", MaxPrompt)
	case strings.ContainsRune(s.Prompt, 0):
		refuse("prompt", "has a NUL byte: remove it")
	}
	for _, f := range CheckTemplate(s.Prompt) {
		refuse("prompt", "%s", f)
	}
	if hasControl(s.Model) || strings.HasPrefix(s.Model, "-") || len(s.Model) > 200 {
		refuse("model", "is not a model name: it may not start with - or hold control characters")
	}
	if !slices.Contains([]Permission{PermissionRead, PermissionEdit, PermissionFull}, s.Permission) {
		refuse("permission", "must be read, edit or full")
	}
	for i, a := range s.Args {
		if strings.ContainsRune(a, 0) {
			refuse(fmt.Sprintf("args.%d", i), "has a NUL byte, which no argument can hold")
		}
	}
	if s.Backend == BackendAnthropic {
		if len(s.Args) > 0 {
			refuse("args", "does not apply to backend anthropic, which has no CLI: remove it")
		}
		if len(s.Paths) > 0 {
			refuse("paths", "does not apply to backend anthropic, which has no tools: remove it")
		}
	}
}

// WithDefaults returns the spec with unset words filled in. Numbers are filled
// in where the input is read, because there 0 has a meaning of its own.
func (s Spec) WithDefaults() Spec {
	if s.Overlap == "" {
		s.Overlap = OverlapQueue
	}
	if s.Permission == "" && s.Backend != BackendCommand && s.Agent == "" {
		s.Permission = PermissionEdit
	}
	return s
}

func validEnvName(name string) bool {
	if name == "" || len(name) > 256 || name[0] >= '0' && name[0] <= '9' {
		return false
	}
	for _, c := range []byte(name) {
		if c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// clip bounds a piece of input that an error repeats.
func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}

// suggest returns `; did you mean "x"?` for the nearest known word, or "".
func suggest(word string, known []string) string {
	if best := Nearest(word, known); best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	return ""
}

// Nearest returns the known word that a typo most likely meant: the one within
// two edits, or a third of the word's length if that is more. It returns ""
// when none is near. Case is ignored.
func Nearest(word string, known []string) string {
	best, bestAt := "", max(2, len(word)/3)+1
	for _, k := range known {
		if d := editDistance(strings.ToLower(word), strings.ToLower(k)); d < bestAt {
			best, bestAt = k, d
		}
	}
	return best
}

// editDistance is Levenshtein's, over bytes, in one row.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// SecretName reports whether an environment variable's name says that its
// value is a secret.
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
