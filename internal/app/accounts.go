package app

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/searchpath"
)

// checkAccount returns why the account cannot or may not work, judging by the server's files and
// environment. A hint alone only means that no credentials were found: a CLI may read others, for
// example from the system's key store.
func (a *App) checkAccount(acc *agented.Account) (p agented.AccountProblem) {
	b, ok := registry.ByName(acc.Backend)
	if !ok {
		return p
	}
	if !acc.Default && acc.Config != "" && len(acc.Credentials) == 0 {
		if list, err := os.ReadDir(acc.Config); errors.Is(err, fs.ErrNotExist) {
			return agented.AccountProblem{
				Hint: "its folder " + acc.Config + " does not exist", Fix: "create the folder (mkdir -p " + acc.Config + "), then " + acc.SetupFix(), Gone: true,
			}
		} else if err == nil && len(list) == 0 {
			return agented.AccountProblem{Hint: "its folder " + acc.Config + " is empty", Fix: acc.SetupFix(), Gone: true}
		}
	}
	c := a.config.Load()
	if program := b.Program(); program != "" {
		path, _ := c.Variable("PATH")
		if _, err := searchpath.Find(program, path); err != nil {
			return agented.AccountProblem{
				Hint: "the program " + program + " is not installed, or not on the server's PATH (" + path + ")", Fix: b.Install(), NotInstalled: true,
			}
		}
	}
	if len(acc.Credentials) > 0 {
		return p
	}
	if acc.Default {
		for name, value := range c.BackendEnv(acc.Backend) {
			if value != "" && agented.SecretName(name) {
				return p
			}
		}
	}
	home, _ := c.Variable("HOME")
	if loginSeen(b, acc, home) {
		return p
	}
	return agented.AccountProblem{Hint: noCredentials(b, acc, home), Fix: acc.SetupFix()}
}

// noCredentials returns the hint that lists where no credentials of an account were found.
func noCredentials(cli agentcli.CLI, acc *agented.Account, home string) string {
	var places []string
	if acc.Default {
		places = append(places, "no "+acc.CredentialVariable()+" in the server's settings")
	} else {
		places = append(places, "none stored with the account")
	}
	if files := loginFiles(cli, acc, home); len(files) > 0 {
		places = append(places, "no login in "+strings.Join(files, " or "))
	}
	return "no credentials found: " + strings.Join(places, ", ")
}

// loginFile returns the path of a file with an account's login.
func loginFile(f *agentcli.LoginFile, acc *agented.Account, home string) string {
	if acc.Config != "" {
		return filepath.Join(acc.Config, f.Own)
	}
	return filepath.Join(home, f.Home)
}

// loginFiles returns the files in which a CLI stores a login.
func loginFiles(cli agentcli.CLI, acc *agented.Account, home string) []string {
	var out []string
	for _, f := range cli.Rules().LoginFiles {
		out = append(out, loginFile(&f, acc, home))
	}
	return out
}

// loginSeen reports whether the CLI's login files exist.
func loginSeen(cli agentcli.CLI, acc *agented.Account, home string) bool {
	for _, f := range cli.Rules().LoginFiles {
		text, err := os.ReadFile(loginFile(&f, acc, home))
		if err != nil {
			continue
		}
		if len(f.Words) == 0 || slices.ContainsFunc(f.Words, func(w string) bool { return strings.Contains(string(text), w) }) {
			return true
		}
	}
	return false
}
