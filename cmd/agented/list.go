package main

import (
	"encoding/json"
	"fmt"
	"iter"
	"os"

	"github.com/spf13/cobra"

	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/term"
)

// listing describes the table of a list command.
type listing struct {
	header string // column names, separated by spaces
	empty  string // printed if the list is empty
}

// showList prints a list as a table, whose rows row formats, or as JSON. Items for which row
// returns nil are omitted.
func showList[T any](cmd *cobra.Command, items iter.Seq2[client.Response[T], error], l listing, row func(*T) []string) error {
	rows, all := [][]string{}, []json.RawMessage{}
	for item, err := range items {
		if err != nil {
			return err
		}
		if r := row(&item.Value); r != nil {
			rows, all = append(rows, r), append(all, item.Raw)
		}
	}
	if wantJSON(cmd) {
		return term.PrintJSON(os.Stdout, map[string]any{"items": all})
	}
	if len(rows) == 0 {
		fmt.Fprintln(os.Stderr, l.empty)
		return nil
	}
	return term.Table(os.Stdout, l.header, rows)
}

// triggerFlag returns the id of the trigger that the flag --trigger names, or "" without the flag.
func triggerFlag(cmd *cobra.Command, c *client.Client) (string, error) {
	ref, _ := cmd.Flags().GetString("trigger")
	if ref == "" {
		return "", nil
	}
	t, err := findTrigger(cmd.Context(), c, ref)
	return t.Value.ID, err
}

// flagText returns the value of a flag for text, or nil if the flag is not set.
func flagText(cmd *cobra.Command, name string) *string {
	v, err := cmd.Flags().GetString(name)
	return ifSet(cmd, name, v, err)
}

// flagInt returns the value of a flag for a number, or nil if the flag is not set.
func flagInt(cmd *cobra.Command, name string) *int {
	v, err := cmd.Flags().GetInt(name)
	return ifSet(cmd, name, v, err)
}

// flagBool returns the value of a switch, or nil if the flag is not set.
func flagBool(cmd *cobra.Command, name string) *bool {
	v, err := cmd.Flags().GetBool(name)
	return ifSet(cmd, name, v, err)
}

func ifSet[T any](cmd *cobra.Command, name string, v T, err error) *T {
	if err != nil || !cmd.Flags().Changed(name) {
		return nil
	}
	return &v
}
