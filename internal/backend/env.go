package backend

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/agented/agented"
)

// passed lists the server's own variables that every child gets, if set: who
// and where it is, its language, and how it reaches the network. LC_* come on
// top.
var passed = []string{
	"HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR",
	"XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME",
	"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS",
}

// locale lists the LC_ variables there are; lookup cannot enumerate.
var locale = []string{
	"LC_ALL", "LC_ADDRESS", "LC_COLLATE", "LC_CTYPE", "LC_IDENTIFICATION", "LC_MEASUREMENT", "LC_MESSAGES",
	"LC_MONETARY", "LC_NAME", "LC_NUMERIC", "LC_PAPER", "LC_TELEPHONE", "LC_TIME",
}

// never lists what tells a CLI that it runs inside another agent. A server
// that was started from an agent's shell must not pass that on: claude then
// refuses to start, or behaves as a child session.
var never = []string{"CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_SSE_PORT"}

// defaultPath is the PATH of a child when the server has none.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// ChildEnv returns the complete environment of an attempt's CLI but for the
// plan's additions, PWD and the AGENTED_ names: an explicit list, sorted, each
// name once. Nothing else of the server's environment reaches a child.
//
// lookup is the server's environment; own holds the account's variables, of
// which those that belong to another backend are left out; allowed names what
// a trigger may take from the server with a null value. A later source wins
// over an earlier one: server, account, trigger.
func ChildEnv(b Backend, spec agented.Spec, own map[string]string, lookup func(string) (string, bool), allowed []string) ([]string, error) {
	env := map[string]string{"PATH": defaultPath, "TERM": "dumb"}
	if path, ok := lookup("PATH"); ok && path != "" {
		env["PATH"] = path
	}
	for _, name := range slices.Concat(passed, locale) {
		if value, ok := lookup(name); ok {
			env[name] = value
		}
	}
	for name, value := range own {
		if value != "" && !belongsElsewhere(b, name) {
			env[name] = value
		}
	}
	if b.Name() == agented.BackendCommand && spec.TTY {
		delete(env, "TERM") // the plan sets the pseudo-terminal's
	}
	var bad []agented.Field
	for name, value := range spec.Env {
		if value != nil {
			env[name] = *value
			continue
		}
		switch server, ok := lookup(name); {
		case !slices.Contains(allowed, name):
			bad = append(bad, agented.Field{Path: "env." + name, Text: "the server's variable of that name may not be passed on: an admin must allow the name first, or give it a value here"})
		case slices.Contains(never, name):
			// It speaks of the process that started the server, not of this one.
		case !ok:
			bad = append(bad, agented.Field{Path: "env." + name, Text: "the server has no variable of that name: set it for the server, or give it a value here"})
		default:
			env[name] = server
		}
	}
	if len(bad) > 0 {
		slices.SortFunc(bad, func(a, b agented.Field) int { return strings.Compare(a.Path, b.Path) })
		return nil, agented.InvalidFields(bad)
	}
	if b.Name() == agented.BackendClaude {
		if root := env["CLAUDE_PLUGIN_ROOT"]; filepath.IsAbs(root) {
			env["PATH"] = filepath.Join(root, "bin") + ":" + root + ":" + env["PATH"]
		}
	}
	if spec.WorkingDir != "" {
		env["PWD"] = spec.WorkingDir
	}
	out := make([]string, 0, len(env))
	for name, value := range env {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
			return nil, agented.Errorf(agented.Invalid, "environment variable %q has a name or a value that no environment can hold", clip(name, 60))
		}
		out = append(out, fmt.Sprintf("%s=%s", name, value))
	}
	slices.Sort(out)
	return out, nil
}

// belongsElsewhere reports whether the variable is another backend's and not
// this one's.
func belongsElsewhere(b Backend, name string) bool {
	if slices.Contains(b.Variables(), name) {
		return false
	}
	return slices.ContainsFunc(catalogue, func(other Backend) bool { return slices.Contains(other.Variables(), name) })
}
