package main

import "github.com/spf13/cobra"

// wantJSON reports whether --json was given.
func wantJSON(cmd *cobra.Command) bool {
	on, err := cmd.Flags().GetBool("json")
	return err == nil && on
}

func jsonFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().Bool("json", false, "print JSON for scripts")
	return cmd
}

func rawFlag(cmd *cobra.Command) {
	cmd.Flags().Bool("raw", false, "print an agent's output as its CLI prints it, with escape sequences")
}
