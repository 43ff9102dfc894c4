// Package registry lists the agent CLIs.
package registry

import (
	"slices"
	"sync"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/anthropic"
	"github.com/agented/agented/internal/agentcli/claude"
	"github.com/agented/agented/internal/agentcli/codex"
	"github.com/agented/agented/internal/agentcli/command"
	"github.com/agented/agented/internal/agentcli/gemini"
	"github.com/agented/agented/internal/agentcli/opencode"
)

// clis lists every CLI in display order. A CLI needs a folder and an element here.
var clis = &list{all: []agentcli.CLI{command.CLI{}, claude.CLI{}, codex.CLI{}, gemini.CLI{}, opencode.CLI{}, anthropic.CLI{}}}

type list struct {
	mu  sync.RWMutex // guards all
	all []agentcli.CLI
}

// change replaces the CLIs by what edit makes of a copy of them.
func (l *list) change(edit func([]agentcli.CLI) []agentcli.CLI) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = edit(slices.Clone(l.all))
}

// Add adds a CLI for a test, and returns a function that removes it.
func Add(cli agentcli.CLI) (remove func()) {
	clis.change(func(all []agentcli.CLI) []agentcli.CLI { return append(all, cli) })
	return func() {
		clis.change(func(all []agentcli.CLI) []agentcli.CLI {
			return slices.DeleteFunc(all, func(c agentcli.CLI) bool { return c == cli })
		})
	}
}

// All returns every CLI in display order. The caller does not change it.
func All() []agentcli.CLI {
	clis.mu.RLock()
	defer clis.mu.RUnlock()
	return clis.all
}

// Names returns the names of every CLI in display order.
func Names() []string {
	var out []string
	for _, c := range All() {
		out = append(out, c.Name())
	}
	return out
}

// Decode returns the events of one whole line of standard output of the CLI with the given name. They
// are empty for an unknown one.
func Decode(name string, line []byte) []agentcli.Event {
	cli, ok := ByName(name)
	if !ok {
		return nil
	}
	return agentcli.Decode(cli, agented.Stdout, line)
}

// ByName returns the CLI with the given name.
func ByName(name string) (agentcli.CLI, bool) {
	for _, c := range All() {
		if c.Name() == name {
			return c, true
		}
	}
	return nil, false
}
