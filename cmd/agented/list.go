package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"github.com/agented/agented/internal/client"
)

// listing is a list of the API as a command shows it.
type listing struct {
	path   string
	query  url.Values // nil is none
	limit  int        // 0 is all
	header string     // of the columns, separated by spaces
	empty  string     // what to say when there is nothing
}

// showList prints a list: as a table whose rows row makes, or as JSON. An item
// for which row gives nothing is left out.
func showList[T any](cmd *cobra.Command, c *client.Client, l listing, row func(*T) []string) error {
	if l.query == nil {
		l.query = url.Values{}
	}
	rows, all := [][]string{}, []json.RawMessage{}
	err := pages(cmd.Context(), c, l.path, l.query, l.limit, func(item json.RawMessage) error {
		v := new(T)
		if err := json.Unmarshal(item, v); err != nil {
			return err
		}
		if r := row(v); r != nil {
			rows, all = append(rows, r), append(all, item)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if wantJSON(cmd) {
		return printJSON(os.Stdout, map[string]any{"items": all})
	}
	if len(rows) == 0 {
		fmt.Fprintln(os.Stderr, l.empty)
		return nil
	}
	return table(os.Stdout, l.header, rows)
}

// ofTrigger narrows a list to the trigger that the flag --trigger names, if it
// is set.
func ofTrigger(cmd *cobra.Command, c *client.Client, query url.Values) error {
	ref, _ := cmd.Flags().GetString("trigger")
	if ref == "" {
		return nil
	}
	_, t, err := findTrigger(cmd.Context(), c, ref)
	if err == nil {
		query.Set("trigger_id", t.ID)
	}
	return err
}
