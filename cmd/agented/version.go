package main

import (
	"fmt"
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/agented/agented/internal/term"
)

func versionCommand() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "version", Short: "Print the version of this program", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			platform := runtime.GOOS + "/" + runtime.GOARCH
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, map[string]string{
					"version": version, "go_version": runtime.Version(), "platform": platform,
				})
			}
			fmt.Printf("agented %s (%s, %s)\n", version, runtime.Version(), platform)
			return nil
		},
	})
}
