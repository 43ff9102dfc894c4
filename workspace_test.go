package agented_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/agented/agented"
)

func TestParseRepository(t *testing.T) {
	t.Parallel()
	good := map[string]string{ // address to protocol and host
		"https://github.com/owner/name.git":    "https github.com",
		"https://user@host.example:8443/a/b":   "https host.example:8443",
		"http://127.0.0.1:8080/x.git":          "http 127.0.0.1:8080",
		"https://[::1]:8443/x.git":             "https [::1]:8443",
		"ssh://git@github.com/owner/name.git":  "ssh github.com",
		"git@github.com:owner/name.git":        "ssh github.com",
		"file:///srv/git/name.git":             "file ",
		"https://host/with%20space/name":       "https host",
		"https://host/ümläut/name":             "https host",
		"ssh://host:2222/~user/name-with-dash": "ssh host:2222",
	}
	for address, want := range good {
		r, err := agented.ParseRepository(address)
		if err != nil || r.Protocol+" "+r.Host != want || r.Address != address {
			t.Errorf("%q: %+v, %v, want %s", address, r, err, want)
		}
	}
	for _, address := range []string{
		"", "--upload-pack=touch /tmp/x", "-x", "--upload-pack=x", "ext::sh -c touch% /tmp/x", "ext::sh%20-c", "fd::17", "fd::17/x",
		"git://host/x", "ftp://host/x", "javascript://host/x", "https://user:secret@host/x", "https://host/../x", "https://host/%2e%2e/x",
		"https://-oProxyCommand=x/y", "ssh://-oProxyCommand=touch/x", "ssh://%2doProxyCommand=x/y", "ssh://git@-host/x", "-host:x", "git@-host:x",
		"git@host:-x", "git@host::x", "git@host:", "git@host", "host:path", "C:\\x", "/srv/git/x.git", "../x", "file://host/x", "file://", "file:///",
		"https://host", "https://host/", "https://host/x y", "https://host/x\ty", "https://host/x\ny", "https://host/x%00y", "https://host/x%0ay",
		"https://host/x?y", "https://host/x#y", "https://host:port/x", "https://ho st/x", "https:///x", "https://host/\xff", strings.Repeat("x", 3000),
	} {
		if r, err := agented.ParseRepository(address); err == nil {
			t.Errorf("%q is taken as %+v", address, r)
		} else if agented.KindOf(err) != agented.Invalid {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// TestValidRef compares ValidRef with git itself.
func TestValidRef(t *testing.T) {
	t.Parallel()
	refs := []string{
		"main", "feature/x-1", "v1.2.3", "refs/heads/main", "dependabot/npm_and_yarn/@types/node-20.1.0", "größe", "feat/日本", "a@b", "issue#7", "c++/a+b", "pct%20",
		"feat(api)-x", "fix/it's", "a!b", "a&b", "tab_|_margin", `q"q`, "dep$1", "a;b", "$(x)", "`x`", "<a>", "a,b", "a=b", "a}b", "a{b", "x/-y", "a\u2028b", "a\u00a0b", strings.Repeat("x", 250),
		"-x", "--upload-pack=x", "a..b", "a b", "a\tb", "a\nb", "a~1", "a^", "a:b", "a?", "a*", "a[b", `a\b`, "a.lock", "a.lock/b", ".a", "a/.b",
		"a/", "/a", "a//b", "a.", "a/b.", "@", "@/x", "a@{1}", "a\x7fb", "a\x01b", "a/@", "a.b/c", "a.locked", "]", "a]b",
	}
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("git is not installed")
	}
	for _, ref := range refs {
		cmd := exec.Command(git, "check-ref-format", "--branch", ref)
		cmd.Dir = t.TempDir()
		if want := cmd.Run() == nil; agented.ValidRef(ref) != want {
			t.Errorf("ValidRef(%q) = %t, git says %t", ref, !want, want)
		}
	}
	for _, ref := range []string{"", "a\x00b", "\xff", strings.Repeat("a", 1100)} {
		if agented.ValidRef(ref) {
			t.Errorf("%q is accepted", ref)
		}
	}
}

func TestTriggerValidate_workspace(t *testing.T) {
	t.Parallel()
	token := "secret"
	with := func(change func(*agented.Spec)) []agented.Field {
		s := agented.Spec{
			Backend: "command", Command: []string{"true"}, Overlap: agented.OverlapQueue, Env: map[string]*string{"GIT_TOKEN": &token},
			Workspace: &agented.Workspace{Repository: "https://github.com/{repo_full_name}.git", Credential: "GIT_TOKEN", Paths: []string{"web/src"}, Ref: "{branch}"},
		}
		change(&s)
		return s.Validate()
	}
	if bad := with(func(*agented.Spec) {}); len(bad) > 0 {
		t.Errorf("a good one: %v", bad)
	}
	cases := map[string]struct {
		path   string
		change func(*agented.Spec)
	}{
		"a working directory beside it":    {"workspace", func(s *agented.Spec) { s.WorkingDir = "/tmp" }},
		"a placeholder that nothing fills": {"workspace.repository", func(s *agented.Spec) { s.Workspace.Repository = "https://host/{nothing}" }},
		"a host that the event names":      {"workspace.repository", func(s *agented.Spec) { s.Workspace.Repository = "https://{vars.host}/x" }},
		"a token for any host":             {"workspace.credential", func(s *agented.Spec) { s.Workspace.Repository = "{repo_url}" }},
		"a token for ssh":                  {"workspace.credential", func(s *agented.Spec) { s.Workspace.Repository = "git@host:x" }},
		"a token that is not there":        {"workspace.credential", func(s *agented.Spec) { s.Workspace.Credential = "OTHER" }},
		"a folder that the event names":    {"workspace.repository", func(s *agented.Spec) { s.Workspace.Repository = "file:///srv/{vars.x}"; s.Workspace.Credential = "" }},
		"a protocol that runs commands":    {"workspace.repository", func(s *agented.Spec) { s.Workspace.Repository = "ext::sh" }},
		"a ref that is an option":          {"workspace.ref", func(s *agented.Spec) { s.Workspace.Ref = "--upload-pack=x" }},
		"a folder outside":                 {"workspace.paths.0", func(s *agented.Spec) { s.Workspace.Paths = []string{"../x"} }},
		"git's own folder":                 {"workspace.paths.0", func(s *agented.Spec) { s.Workspace.Paths = []string{".GIT/hooks"} }},
		"a depth below nothing":            {"workspace.depth", func(s *agented.Spec) { s.Workspace.Depth = -1 }},
		"a ceiling below nothing":          {"ceiling_usd", func(s *agented.Spec) { s.CeilingUSD = -1 }},
	}
	for name, c := range cases {
		bad := with(c.change)
		if len(bad) != 1 || bad[0].Path != c.path {
			t.Errorf("%s: %v, want a word about %s", name, bad, c.path)
		}
	}
}

func TestWorkspaceFilled(t *testing.T) {
	t.Parallel()
	sha := strings.Repeat("a", 40)
	w := agented.Workspace{Repository: "https://host/{repo_full_name}.git"}
	got, err := w.Expand(map[string]string{"repo_full_name": "o/n", "sha": sha})
	if err != nil || got.Repository != "https://host/o/n.git" || got.Ref != sha {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := w.Expand(map[string]string{"repo_full_name": "o/n"}); err != nil || got.Ref != "" {
		t.Errorf("without a commit: %+v, %v", got, err)
	}
	for _, name := range []string{"vars.sha", "vars.head_sha", "vars.commit", "vars.ref", "message"} {
		if got, err := w.Expand(map[string]string{"repo_full_name": "o/n", name: sha}); err != nil || got.Ref != "" {
			t.Errorf("%s chose the ref: %+v, %v", name, got, err)
		}
	}
	for name, values := range map[string]map[string]string{
		"a way out":      {"repo_full_name": "../../x"},
		"an option":      {"repo_full_name": "o/n", "sha": "--upload-pack=x"},
		"a new line":     {"repo_full_name": "o/n\nx"},
		"a marked block": {"repo_full_name": "<<<untrusted\no/n\n>>>"},
	} {
		if got, err := w.Expand(values); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got, err := (agented.Workspace{Repository: "{repo_url}"}).Expand(map[string]string{"repo_url": "file:///etc"}); err == nil {
		t.Errorf("a folder of the server: %+v", got)
	}
	if got, err := (agented.Workspace{Repository: "https://host/x", Ref: "{branch}"}).Expand(nil); err == nil {
		t.Errorf("a branch that is not there: %+v", got)
	}
}

func FuzzParseRepository(f *testing.F) {
	for _, s := range []string{"https://h/x", "git@h:x", "ext::x", "ssh://-o/x", "file:///x", "https://u:p@h/x", "--upload-pack=x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, address string) {
		r, err := agented.ParseRepository(address)
		if err != nil {
			return
		}
		if strings.HasPrefix(address, "-") || strings.Contains(strings.SplitN(address, "/", 2)[0], "::") || strings.HasPrefix(r.Host, "-") || strings.HasPrefix(r.User, "-") || strings.ContainsAny(address, " \n\x00") {
			t.Errorf("%q is taken as %+v", address, r)
		}
	})
}
