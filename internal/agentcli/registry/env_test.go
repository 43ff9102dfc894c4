package registry_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli/registry"
)

// server is the environment of a server that contains more than a child may receive.
var server = map[string]string{
	"PATH": "/usr/bin:/bin", "HOME": "/home/agent", "USER": "agent", "LANG": "C.UTF-8", "LC_TIME": "de_DE.UTF-8", "TZ": "Asia/Seoul",
	"https_proxy": "http://proxy:3128", "SECRET_KEY": "s", "AGENTED_API_KEY": "a", "GITHUB_WEBHOOK_SECRET": "w",
	"ANTHROPIC_API_KEY": "server-anthropic", "OPENAI_API_KEY": "server-openai", "AGENTED_DATA_DIR": "/d", "LD_PRELOAD": "/x.so",
	"CLAUDECODE": "1", "CLAUDE_CODE_ENTRYPOINT": "cli", "NODE_OPTIONS": "--inspect", "GITHUB_TOKEN": "ghp", "EMPTY": "", "COLORTERM": "truecolor",
}

func lookup(name string) (string, bool) { v, ok := server[name]; return v, ok }

func childEnv(t *testing.T, name string, spec agented.Spec, own map[string]string, allowed ...string) []string {
	t.Helper()
	b, ok := registry.ByName(name)
	if !ok {
		t.Fatal(name)
	}
	spec.Backend = name
	env, err := registry.ChildEnv(b, spec, own, lookup, allowed)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

var base = []string{
	"HOME=/home/agent", "LANG=C.UTF-8", "LC_TIME=de_DE.UTF-8", "PATH=/usr/bin:/bin", "TERM=dumb", "TZ=Asia/Seoul", "USER=agent", "https_proxy=http://proxy:3128",
}

func TestChildEnv_explicit_list(t *testing.T) {
	t.Parallel()
	for _, name := range agented.Backends {
		if diff := cmp.Diff(base, childEnv(t, name, agented.Spec{}, nil)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestChildEnv_account_variables(t *testing.T) {
	t.Parallel()
	all := map[string]string{
		"ANTHROPIC_API_KEY": "a", "OPENAI_API_KEY": "o", "GEMINI_API_KEY": "g", "CODEX_HOME": "/c", "CLAUDE_CONFIG_DIR": "/cl",
		"GEMINI_CLI_HOME": "/gm", "OPENCODE_HOME": "/oc", "ANTHROPIC_BASE_URL": "",
	}
	want := map[string][]string{
		"command": nil, "claude": {"ANTHROPIC_API_KEY=a", "CLAUDE_CONFIG_DIR=/cl"}, "codex": {"CODEX_HOME=/c", "OPENAI_API_KEY=o"},
		"gemini": {"GEMINI_API_KEY=g", "GEMINI_CLI_HOME=/gm"}, "opencode": {"ANTHROPIC_API_KEY=a", "GEMINI_API_KEY=g", "OPENAI_API_KEY=o", "OPENCODE_HOME=/oc"},
		"anthropic": {"ANTHROPIC_API_KEY=a"},
	}
	for name, more := range want {
		expect := slices.Concat(base, more)
		slices.Sort(expect)
		if diff := cmp.Diff(expect, childEnv(t, name, agented.Spec{}, all)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestChildEnv_precedence(t *testing.T) {
	t.Parallel()
	value := "mine"
	env := childEnv(t, "claude", agented.Spec{WorkingDir: "/srv/w", Env: map[string]*string{
		"LANG": &value, "ANTHROPIC_API_KEY": &value, "GITHUB_TOKEN": nil, "EMPTY": nil, "CLAUDECODE": nil,
	}}, map[string]string{"ANTHROPIC_API_KEY": "account"}, "GITHUB_TOKEN", "EMPTY", "CLAUDECODE")
	for _, want := range []string{"LANG=mine", "ANTHROPIC_API_KEY=mine", "GITHUB_TOKEN=ghp", "EMPTY=", "PWD=/srv/w"} {
		if !slices.Contains(env, want) {
			t.Errorf("%s is missing in %q", want, env)
		}
	}
	if slices.ContainsFunc(env, func(s string) bool { return strings.HasPrefix(s, "CLAUDECODE=") }) {
		t.Error("the child is told that it runs inside the agent that started the server")
	}
	if !slices.IsSorted(env) {
		t.Errorf("not sorted: %q", env)
	}
	names := map[string]bool{}
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if names[name] {
			t.Errorf("%s is there twice", name)
		}
		names[name] = true
	}
}

func TestChildEnv_forbidden_variable(t *testing.T) {
	t.Parallel()
	b, _ := registry.ByName("claude")
	_, err := registry.ChildEnv(b, agented.Spec{Env: map[string]*string{"SECRET_KEY": nil, "NOT_THERE": nil}}, nil, lookup, []string{"NOT_THERE"})
	if agented.KindOf(err) != agented.Invalid {
		t.Fatalf("err = %v", err)
	}
	got := agented.Message(err)
	if !strings.Contains(got, "env.NOT_THERE: the server has no variable") || strings.Contains(got, server["LANG"]) {
		t.Errorf("message %q", got)
	}
	e := err.(*agented.Error)
	if len(e.Fields) != 2 || e.Fields[1].Path != "env.SECRET_KEY" || !strings.Contains(e.Fields[1].Text, "an admin must allow") {
		t.Errorf("fields %+v", e.Fields)
	}
}

func TestPlugin_path_claude_only(t *testing.T) {
	t.Parallel()
	own := map[string]string{"CLAUDE_PLUGIN_ROOT": "/opt/plugin"}
	env := childEnv(t, "claude", agented.Spec{}, own)
	if !slices.Contains(env, "PATH=/opt/plugin/bin:/opt/plugin:/usr/bin:/bin") || !slices.Contains(env, "CLAUDE_PLUGIN_ROOT=/opt/plugin") {
		t.Errorf("claude: %q", env)
	}
	if diff := cmp.Diff(base, childEnv(t, "codex", agented.Spec{}, own)); diff != "" {
		t.Errorf("codex: %s", diff)
	}
}

func TestChildEnv_default_path(t *testing.T) {
	t.Parallel()
	b, _ := registry.ByName("command")
	env, err := registry.ChildEnv(b, agented.Spec{}, nil, func(string) (string, bool) { return "", false }, nil)
	if err != nil || len(env) != 2 || !strings.HasPrefix(env[0], "PATH=/usr/local") {
		t.Errorf("%q, %v", env, err)
	}
}

func TestChildEnv_invalid_names(t *testing.T) {
	t.Parallel()
	b, _ := registry.ByName("claude")
	for name, value := range map[string]string{"A=B": "x", "OK": "a\x00b"} {
		if _, err := registry.ChildEnv(b, agented.Spec{}, map[string]string{name: value}, lookup, nil); err == nil {
			t.Errorf("%q=%q passes", name, value)
		}
	}
}
