package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/manifest"
	"github.com/agented/agented/internal/term"
)

func triggerApply() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use:   "apply -f FILE|DIR",
		Short: "Create or change triggers from YAML or JSON",
		Long: `Create or change triggers from YAML or JSON files. Triggers are identified by
name; applying the same file twice changes nothing. Fields that are missing from a
file keep their values. All files are applied in one transaction: if one is
invalid, nothing changes. --dry-run validates everything on the server and changes
nothing.

Triggers that are in no file stay unchanged. With --prune, apply deletes triggers
that an earlier apply with the same --set created and that are in no file now.
Triggers that were created in another way are never deleted.`,
		Example: `  agented trigger apply -f hello.yaml
  agented trigger apply -f triggers/ --dry-run
  agented trigger apply -f triggers/ --set team-a --prune --dry-run
  echo '{"name":"hello","backend":"command","command":["sh","-c","echo hi"]}' | agented trigger apply -f -`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, _ := cmd.Flags().GetString("file")
			if path == "" {
				return usageError{errors.New("-f is missing: give a file, a folder, or - for standard input")}
			}
			wanted, err := manifest.Trigger.Read(cmd.Context(), path)
			if err != nil {
				return err
			}
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			return applyAll(cmd, manifest.Trigger, c.ApplyTriggers, wanted)
		},
	})
	return applyFlags(cmd)
}

// defaultSet is the name of the set that apply uses without --set.
const defaultSet = "default"

func applyFlags(cmd *cobra.Command) *cobra.Command {
	f := cmd.Flags()
	f.StringP("file", "f", "", "a YAML or JSON file, a folder of them, or - for standard input")
	f.Bool("dry-run", false, "validate everything on the server and show the changes without applying them")
	f.String("set", defaultSet, "name of the set that created objects belong to")
	f.Bool("prune", false, "delete objects that apply created with the same --set and that are in no file now")
	return cmd
}

// applied is the result for one object.
type applied struct {
	Name   string        `json:"name"`
	ID     string        `json:"id,omitempty"`
	Action string        `json:"action"` // created, changed, unchanged, deleted
	Diff   []string      `json:"diff,omitempty"`
	Notes  []string      `json:"notes,omitempty"` // one note per rewritten legacy field
	Hints  []client.Hint `json:"hints,omitempty"` // problems that keep it from working
}

// applyAll applies all objects in one request and one transaction.
func applyAll(cmd *cobra.Command, k manifest.Kind, apply func(context.Context, client.ApplyRequest, bool) (client.Response[client.Applied], error), wanted []manifest.Item) error {
	flags := cmd.Flags()
	dry, _ := flags.GetBool("dry-run")
	set, _ := flags.GetString("set")
	prune, _ := flags.GetBool("prune")
	if strings.TrimSpace(set) == "" {
		return usageError{errors.New("--set must not be empty")}
	}
	in := client.ApplyRequest{Set: set, Prune: prune, Items: make([]map[string]any, len(wanted))}
	for i := range wanted {
		in.Items[i] = wanted[i].Body
	}
	got, err := apply(cmd.Context(), in, dry)
	if err != nil {
		return k.Explain(wanted, err)
	}
	done := make([]applied, 0, len(got.Value.Items))
	for i, item := range got.Value.Items {
		a := applied{Name: item.Name, ID: item.ID, Action: item.Action, Hints: item.After.Hints}
		if i < len(wanted) { // the remaining items were pruned
			a.Notes = wanted[i].Notes
			if item.Action == "created" || item.Action == "changed" {
				a.Diff = manifest.Diff(item.Before, wanted[i].Body)
			}
		}
		done = append(done, a)
	}
	if wantJSON(cmd) {
		return term.PrintJSON(os.Stdout, map[string]any{"items": done, "dry_run": dry})
	}
	for _, a := range done {
		action := a.Action
		if dry && action != "unchanged" {
			action = "would be " + action
		}
		fmt.Printf("%s: %s\n", term.Printable(a.Name), action)
		for _, note := range a.Notes {
			fmt.Println("  " + term.Paint(os.Stdout, term.Yellow, "note: "+note))
		}
		for _, hint := range a.Hints {
			fmt.Println("  " + term.Paint(os.Stdout, term.Yellow, "hint: "+term.Printable(hint.Field+": "+hint.Text+": "+hint.Fix)))
		}
		for _, line := range a.Diff {
			colour := map[byte]string{'+': term.Green, '-': term.Red, '~': term.Yellow}[line[0]]
			fmt.Println("  " + term.Paint(os.Stdout, colour, line))
		}
	}
	return nil
}
