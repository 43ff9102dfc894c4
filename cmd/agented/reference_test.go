package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write the generated part of the reference of commands")

const generatedMark = "<!-- The rest is generated: go test ./cmd/agented -run TestGeneratedCommandReference -update -->\n"

// TestGeneratedCommandReference keeps docs/reference/cli.md in sync with the commands.
func TestGeneratedCommandReference(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "reference", "cli.md")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, have, ok := strings.Cut(string(b), generatedMark)
	if !ok {
		t.Fatalf("%s has no mark of the generated part", path)
	}
	var out strings.Builder
	describe(&out, newRoot())
	if want := out.String(); have != want {
		if *update {
			if err := os.WriteFile(path, []byte(head+generatedMark+want), 0o644); err != nil {
				t.Fatal(err)
			}
			return
		}
		t.Errorf("%s is out of date; run go test ./cmd/agented -run TestGeneratedCommandReference -update", path)
	}
}

// describe writes a section for each command without subcommands.
func describe(out *strings.Builder, c *cobra.Command) {
	for _, child := range c.Commands() {
		if child.Hidden || child.Name() == "help" || child.Name() == "completion" {
			continue
		}
		if child.HasSubCommands() {
			describe(out, child)
			continue
		}
		out.WriteString("\n## `" + strings.TrimSuffix(child.CommandPath(), " ") + "`\n\n" + child.Short + ".\n\n```\n" + child.UseLine() + "\n```\n")
		if child.Example != "" {
			out.WriteString("\n```sh\n" + strings.TrimRight(child.Example, "\n") + "\n```\n")
		}
		var rows []string
		child.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Hidden || f.Name == "help" {
				return
			}
			name := "`--" + f.Name + "`"
			if f.Shorthand != "" {
				name = "`-" + f.Shorthand + "`, " + name
			}
			rows = append(rows, "| "+name+" | "+strings.ReplaceAll(f.Usage, "|", "\\|")+" |\n")
		})
		if len(rows) > 0 {
			out.WriteString("\n| flag | meaning |\n|---|---|\n" + strings.Join(rows, ""))
		}
	}
}

func TestHelp_every_command(t *testing.T) {
	t.Parallel()
	root := newRoot()
	root.InitDefaultCompletionCmd()
	seen := 0
	var visit func(args []string)
	visit = func(args []string) {
		c, _, err := root.Find(args)
		if err != nil {
			t.Fatal(err)
		}
		seen++
		var out strings.Builder
		c.SetOut(&out)
		if err := c.Help(); err != nil || !strings.Contains(out.String(), "Usage:") || c.Short == "" {
			t.Errorf("agented %s: help %q, short %q, %v", strings.Join(args, " "), out.String(), c.Short, err)
		}
		if strings.HasSuffix(c.Short, ".") {
			t.Errorf("agented %s: the short text ends with a full stop", strings.Join(args, " "))
		}
		for _, child := range c.Commands() {
			visit(append(append([]string{}, args...), child.Name()))
		}
	}
	visit(nil)
	if seen < 20 {
		t.Errorf("only %d commands were seen", seen)
	}
}
