package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/examples"
	"github.com/agented/agented/internal/term"
)

func exampleCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "example", Short: "List and print example trigger files", GroupID: "client"}
	cmd.AddCommand(
		jsonFlag(&cobra.Command{
			Use: "list", Short: "List the examples", Args: exactArgs(),
			RunE: func(cmd *cobra.Command, _ []string) error {
				list := examples.List()
				if wantJSON(cmd) {
					return term.PrintJSON(os.Stdout, map[string]any{"items": list})
				}
				rows := make([][]string, len(list))
				for i, e := range list {
					rows[i] = []string{e.Name, e.Summary}
				}
				return term.Table(os.Stdout, "NAME SUMMARY", rows)
			},
		}),
		&cobra.Command{
			Use: "show NAME", Short: "Print an example as a trigger file", Args: exactArgs("the example's name"),
			Example: `  agented example show pr-review > review.yaml
  agented trigger apply -f review.yaml`,
			ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
				var names []string
				for _, e := range examples.List() {
					names = append(names, e.Name+"\t"+e.Summary)
				}
				return names, cobra.ShellCompDirectiveNoFileComp
			},
			RunE: func(_ *cobra.Command, args []string) error {
				e, ok := examples.Find(args[0])
				if !ok {
					return agented.Errorf(agented.NotFound, "there is no example %q: run `agented example list` to list examples", args[0])
				}
				_, err := os.Stdout.WriteString(e.YAML)
				return err
			},
		},
	)
	return cmd
}
