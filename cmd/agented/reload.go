package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// reloadCommand has the server read its settings again.
func reloadCommand() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "reload", Short: "Have the server read its settings again, and say what came of it", Args: exactArgs(), GroupID: "server",
		Long: `Have the server read its settings file again, as SIGHUP does, and say which settings
have changed and for which it has to be restarted. Settings that are wrong change
nothing: the answer names them with file and line, and the exit code is 2. Needs an
admin's key, as the one that the server leaves for the commands of its user.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			var raw json.RawMessage
			if err := c.Do(cmd.Context(), http.MethodPost, "/api/v1/reload", nil, nil, &raw); err != nil {
				return err
			}
			if wantJSON(cmd) {
				return printJSON(os.Stdout, raw)
			}
			var got struct {
				Changed, Restart, Warnings []string
				File                       string
			}
			if err := json.Unmarshal(raw, &got); err != nil {
				return err
			}
			for _, w := range got.Warnings {
				fmt.Fprintln(os.Stderr, "agented: "+printable(w))
			}
			from := "the environment; there is no settings file"
			if got.File != "" {
				from = got.File
			}
			fmt.Println("settings read again from " + from)
			if len(got.Changed) > 0 {
				fmt.Println("in use from now on: " + strings.Join(got.Changed, ", "))
			}
			if len(got.Restart) > 0 {
				fmt.Println("only after a restart: " + strings.Join(got.Restart, ", "))
			}
			if len(got.Changed)+len(got.Restart) == 0 {
				fmt.Println("nothing has changed")
			}
			return nil
		},
	})
}
