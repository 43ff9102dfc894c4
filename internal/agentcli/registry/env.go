package registry

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
)

// passed lists the server's variables that every child receives if they are set: user, home,
// locale, and network settings. LC_ variables are added.
var passed = []string{
	"HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR",
	"XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME",
	"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS",
}

// locale lists the LC_ variables, because lookup cannot enumerate.
var locale = []string{
	"LC_ALL", "LC_ADDRESS", "LC_COLLATE", "LC_CTYPE", "LC_IDENTIFICATION", "LC_MEASUREMENT", "LC_MESSAGES",
	"LC_MONETARY", "LC_NAME", "LC_NUMERIC", "LC_PAPER", "LC_TELEPHONE", "LC_TIME",
}

// never lists variables that mark a process as a child of another agent. A server that was
// started from an agent's shell must not pass them on: claude would refuse to start, or act as a
// child session.
var never = []string{"CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_SSE_PORT"}

// defaultPath is the PATH of a child if the server has none.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// ChildEnv returns the complete environment of an attempt's CLI, without the plan's additions,
// PWD and the AGENTED_ names. It is an explicit, sorted list with unique names. Nothing else of
// the server's environment reaches a child.
//
// lookup reads the server's environment. own holds the account's variables; those that belong to
// another CLI are omitted. allowed names the server's variables that a trigger may pass on
// with a null value. Later sources take precedence: server, account, trigger.
func ChildEnv(c agentcli.CLI, spec agented.Spec, own map[string]string, lookup func(string) (string, bool), allowed []string) ([]string, error) {
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
		if value != "" && !belongsElsewhere(c, name) {
			env[name] = value
		}
	}
	if !c.Rules().Protocol && spec.TTY {
		delete(env, "TERM") // the plan sets that of the pseudo-terminal
	}
	var bad []agented.Field
	for name, value := range spec.Env {
		if value != nil {
			env[name] = *value
			continue
		}
		switch server, ok := lookup(name); {
		case !slices.Contains(allowed, name):
			bad = append(bad, agented.Field{Path: "env." + name, Text: "the server's variable of that name must not be passed on: an admin must allow the name first; or set a value here"})
		case slices.Contains(never, name):
			// These describe the process that started the server, not the server.
		case !ok:
			bad = append(bad, agented.Field{Path: "env." + name, Text: "the server has no variable of that name: set it in the server's environment, or set a value here"})
		default:
			env[name] = server
		}
	}
	if len(bad) > 0 {
		slices.SortFunc(bad, func(a, b agented.Field) int { return strings.Compare(a.Path, b.Path) })
		return nil, agented.InvalidFields(bad)
	}
	if name := c.Rules().PathEnv; name != "" {
		if root := env[name]; filepath.IsAbs(root) {
			env["PATH"] = filepath.Join(root, "bin") + ":" + root + ":" + env["PATH"]
		}
	}
	if spec.WorkingDir != "" {
		env["PWD"] = spec.WorkingDir
	}
	out := make([]string, 0, len(env))
	for name, value := range env {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
			return nil, agented.Errorf(agented.Invalid, "environment variable %q has an invalid name, or a value with a NUL byte: change it", agentcli.Clip(name, 60))
		}
		out = append(out, fmt.Sprintf("%s=%s", name, value))
	}
	slices.Sort(out)
	return out, nil
}

// belongsElsewhere reports whether the variable belongs to another CLI and not to this one.
func belongsElsewhere(c agentcli.CLI, name string) bool {
	if slices.Contains(c.Rules().Variables, name) {
		return false
	}
	return slices.ContainsFunc(All(), func(other agentcli.CLI) bool { return slices.Contains(other.Rules().Variables, name) })
}
