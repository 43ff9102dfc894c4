package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agented/agented/internal/term"
)

// reloadCommand makes the server reload its settings.
func reloadCommand() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "reload", Short: "Reload the server's settings, and show what changed", Args: exactArgs(), GroupID: "server",
		Long: `Make the server reload its settings file, as SIGHUP does, and show which settings have
changed and which of them need a restart. Invalid settings change nothing: the error
names them with file and line, and the exit code is 2. The command needs an admin key,
such as the one that the server creates for its user's client commands.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			answer, err := c.Reload(cmd.Context())
			if err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, answer)
			}
			got := answer.Value
			for _, w := range got.Warnings {
				fmt.Fprintln(os.Stderr, "agented: "+term.Indented(w, 0))
			}
			from := "the environment; there is no settings file"
			if got.File != "" {
				from = got.File
			}
			fmt.Println("settings reloaded from " + from)
			if len(got.Changed) > 0 {
				fmt.Println("in effect now: " + strings.Join(got.Changed, ", "))
			}
			if len(got.Restart) > 0 {
				fmt.Println("in effect after a restart: " + strings.Join(got.Restart, ", "))
			}
			if len(got.Changed)+len(got.Restart) == 0 {
				fmt.Println("no setting has changed")
			}
			return nil
		},
	})
}
