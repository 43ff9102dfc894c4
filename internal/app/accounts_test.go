package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/config"
)

func TestLoginSeen(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seen := func(backend, config string) bool {
		cli, _ := registry.ByName(backend)
		return loginSeen(cli, &agented.Account{Backend: backend, Config: config}, home)
	}
	for _, b := range agented.Backends[1:] {
		if seen(b, "") {
			t.Errorf("%s: a login in an empty folder", b)
		}
	}
	write(".claude.json", `{"numStartups":1}`)
	if seen(agented.BackendClaude, "") {
		t.Error("settings without a login are one")
	}
	write(".claude.json", `{"oauthAccount":{}}`)
	write(".codex/auth.json", `{}`)
	write("team/auth.json", `{}`)
	if !seen(agented.BackendClaude, "") || !seen(agented.BackendCodex, "") || !seen(agented.BackendCodex, filepath.Join(home, "team")) {
		t.Error("a login is not seen")
	}
}

func TestAccountHints(t *testing.T) {
	t.Parallel()
	home, bin, empty := t.TempDir(), t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "claude"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "codex"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name      string
		account   agented.Account
		env       string
		hint, fix string // words of them; empty: none
		gone      bool
	}{
		{"program_missing", agented.Account{Backend: agented.BackendGemini, Default: true}, "", "gemini is not installed, or not on the server's PATH (" + bin + ")", "npm install -g @google/gemini-cli", false},
		{"default_without_login", agented.Account{Backend: agented.BackendClaude, Name: "default", Default: true}, "", "no ANTHROPIC_API_KEY in the server's settings, no login in " + home + "/.claude/.credentials.json", "(claude, then /login), or set ANTHROPIC_API_KEY in the server's .env", false},
		{"default_with_key", agented.Account{Backend: agented.BackendClaude, Default: true}, "ANTHROPIC_API_KEY=sk-ant-x", "", "", false},
		{"own_without_login", agented.Account{Backend: agented.BackendCodex, Name: "work"}, "", "none stored with the account, no login in " + home + "/.codex/auth.json", "or run agented account update codex/work --credential OPENAI_API_KEY", false},
		{"own_with_key", agented.Account{Backend: agented.BackendCodex, Name: "work", Credentials: map[string]string{"OPENAI_API_KEY": "sealed"}}, "", "", "", false},
		{"folder_missing", agented.Account{Backend: agented.BackendCodex, Name: "work", Config: "/nowhere/codex"}, "", "its folder /nowhere/codex does not exist", "mkdir -p /nowhere/codex", true},
		{"folder_empty", agented.Account{Backend: agented.BackendCodex, Name: "work", Config: empty}, "", "is empty", "CODEX_HOME=" + empty + " codex login", true},
		{"no_CLI_needed", agented.Account{Backend: agented.BackendAnthropic, Name: "api", Default: true}, "", "no ANTHROPIC_API_KEY", "set ANTHROPIC_API_KEY", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf, err := config.Load(config.Options{Dir: home, Environ: func() []string { return []string{"HOME=" + home, "PATH=" + bin, c.env} }})
			if err != nil {
				t.Fatal(err)
			}
			a := new(App)
			a.config.Store(conf)
			p := a.checkAccount(&c.account)
			hint, fix, gone := p.Hint, p.Fix, p.Gone
			if !strings.Contains(hint, c.hint) || !strings.Contains(fix, c.fix) || (c.hint == "") != (hint == "") || (hint == "") != (fix == "") || gone != c.gone {
				t.Errorf("hint %q, fix %q, gone %v", hint, fix, gone)
			}
		})
	}
}
