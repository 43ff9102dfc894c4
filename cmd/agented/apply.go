package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
)

func triggerApply() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use:   "apply -f FILE|DIR",
		Short: "Create or change triggers from YAML or JSON",
		Long: `Create or change triggers from YAML or JSON files. A trigger is found by its
name; applying the same file twice changes nothing. Fields that a file does not
name keep their value. Triggers that no file names are left alone.`,
		Example: `  agented trigger apply -f hello.yaml
  agented trigger apply -f triggers/ --dry-run
  echo '{"name":"hello","backend":"command","command":["sh","-c","echo hi"]}' | agented trigger apply -f -`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, _ := cmd.Flags().GetString("file")
			if path == "" {
				return usageError{errors.New("-f FILE is missing")}
			}
			wanted, err := triggers.read(path)
			if err != nil {
				return err
			}
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			dry, _ := cmd.Flags().GetBool("dry-run")
			return triggers.applyAll(cmd, c, wanted, dry)
		},
	})
	cmd.Flags().StringP("file", "f", "", "a YAML or JSON file, a folder of them, or - for standard input")
	cmd.Flags().Bool("dry-run", false, "show what would change and change nothing")
	return cmd
}

// applied kinds of things: what a file holds, and where the API has it.
var (
	triggers = applyKind{"trigger", "/api/v1/triggers"}
	agents   = applyKind{"agent", "/api/v1/agents"}
)

type applyKind struct{ noun, path string }

// wantedThing is one trigger or agent of a file.
type wantedThing struct {
	where string // "hello.yaml" or "hello.yaml, document 2"
	name  string
	body  map[string]any
	notes []string // what was rewritten from an old form
}

// read reads everything of the kind in a file or a folder. A mistake in any of
// them is an error before anything is sent.
func (k applyKind) read(path string) ([]wantedThing, error) {
	if path == "-" {
		b, err := io.ReadAll(io.LimitReader(os.Stdin, 16<<20))
		if err != nil {
			return nil, fmt.Errorf("read standard input: %w", err)
		}
		return k.parse("standard input", b)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, agented.Errorf(agented.NotFound, "%s is not there", path)
	}
	paths := []string{path}
	if info.IsDir() {
		paths = nil
		entries, err := os.ReadDir(path)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); !e.IsDir() && (ext == ".yaml" || ext == ".yml" || ext == ".json") {
				paths = append(paths, filepath.Join(path, e.Name()))
			}
		}
		if len(paths) == 0 {
			return nil, agented.Errorf(agented.NotFound, "%s has no .yaml, .yml or .json file", path)
		}
	}
	var out []wantedThing
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		some, err := k.parse(p, b)
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	seen := map[string]string{}
	for _, w := range out {
		key := strings.ToLower(w.name)
		if first, twice := seen[key]; twice {
			return nil, agented.Errorf(agented.Invalid, "%s: %s %q is in %s already", w.where, k.noun, w.name, first)
		}
		seen[key] = w.where
	}
	return out, nil
}

// parse reads YAML documents, of which JSON is a part. Each is one of the kind
// or a list of them.
func (k applyKind) parse(file string, b []byte) ([]wantedThing, error) {
	var out []wantedThing
	dec := yaml.NewDecoder(bytes.NewReader(b))
	for n := 1; ; n++ {
		where := file
		if n > 1 {
			where = fmt.Sprintf("%s, document %d", file, n)
		}
		var doc any
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, agented.Errorf(agented.Invalid, "%s: %v", where, err)
		}
		list, isList := doc.([]any)
		if !isList {
			list = []any{doc}
		}
		for _, item := range list {
			if item == nil {
				continue // an empty document
			}
			body, ok := item.(map[string]any)
			name, _ := body["name"].(string)
			if !ok || name == "" {
				return nil, agented.Errorf(agented.Invalid, "%s: each %s is an object with a name", where, k.noun)
			}
			// Through JSON and back, so that it compares with the server's answer.
			enc, err := json.Marshal(body)
			if err != nil {
				return nil, agented.Errorf(agented.Invalid, "%s: %s %q: %v", where, k.noun, name, err)
			}
			body = nil
			if err := json.Unmarshal(enc, &body); err != nil {
				return nil, err
			}
			for _, own := range []string{"id", "created_at", "updated_at", "next_run_at", "webhook_url"} {
				delete(body, own) // so that what `trigger show` printed can be applied
			}
			if k != triggers {
				out = append(out, wantedThing{where, name, body, nil})
				continue
			}
			notes, err := modernSchedules(body)
			if err != nil {
				return nil, agented.Errorf(agented.Invalid, "%s: %s %q: %s", where, k.noun, name, agented.Message(err))
			}
			more, err := modernWebhooks(body)
			if err != nil {
				return nil, agented.Errorf(agented.Invalid, "%s: %s %q: %s", where, k.noun, name, agented.Message(err))
			}
			out = append(out, wantedThing{where, name, body, append(notes, more...)})
		}
	}
	if len(out) == 0 {
		return nil, agented.Errorf(agented.Invalid, "%s holds no %s", file, k.noun)
	}
	return out, nil
}

// applied is what happened to one trigger.
type applied struct {
	Name   string   `json:"name"`
	ID     string   `json:"id,omitempty"`
	Action string   `json:"action"` // created, changed, unchanged
	Diff   []string `json:"diff,omitempty"`
	Notes  []string `json:"notes,omitempty"` // what was rewritten from an old form
}

func (k applyKind) applyAll(cmd *cobra.Command, c *client.Client, wanted []wantedThing, dry bool) error {
	var done []applied
	for _, w := range wanted {
		a, err := k.applyOne(cmd.Context(), c, w, dry)
		if err != nil {
			var e *agented.Error
			if errors.As(err, &e) {
				e.Text = fmt.Sprintf("%s: %s %q: %s", w.where, k.noun, w.name, e.Text)
			}
			if len(done) > 0 && !dry {
				fmt.Fprintf(os.Stderr, "The %d before it were applied.\n", len(done))
			}
			return err
		}
		a.Notes = w.notes
		done = append(done, a)
		if wantJSON(cmd) {
			continue
		}
		action := a.Action
		if dry && action != "unchanged" {
			action = "would be " + action
		}
		fmt.Printf("%s: %s\n", a.Name, action)
		for _, note := range a.Notes {
			fmt.Println("  " + paint(os.Stdout, yellow, "note: "+note))
		}
		for _, line := range a.Diff {
			colour := map[byte]string{'+': green, '-': red, '~': yellow}[line[0]]
			fmt.Println("  " + paint(os.Stdout, colour, line))
		}
	}
	if wantJSON(cmd) {
		return printJSON(os.Stdout, map[string]any{"items": done, "dry_run": dry})
	}
	return nil
}

func (k applyKind) applyOne(ctx context.Context, c *client.Client, w wantedThing, dry bool) (applied, error) {
	a := applied{Name: w.name}
	raw, id, err := k.find(ctx, c, w.name)
	if err != nil {
		return a, err
	}
	var now map[string]any
	if raw != nil {
		a.ID = id
		if err := json.Unmarshal(raw, &now); err != nil {
			return a, err
		}
	}
	a.Diff = diff(now, w.body)
	switch {
	case now == nil:
		a.Action = "created"
	case len(a.Diff) == 0:
		a.Action = "unchanged"
		return a, nil
	default:
		a.Action = "changed"
	}
	if dry {
		return a, nil
	}
	var got struct {
		ID        string `json:"id"`
		UpdatedAt string `json:"updated_at"`
	}
	if now == nil {
		err = c.Do(ctx, http.MethodPost, k.path, nil, w.body, &got)
	} else {
		err = c.Do(ctx, http.MethodPatch, k.path+"/"+id, nil, w.body, &got)
		if err == nil && got.UpdatedAt == now["updated_at"] {
			a.Action, a.Diff = "unchanged", nil // the hidden values were the same, too
		}
	}
	a.ID = got.ID
	return a, err
}

// find answers nil without an error when there is no such thing.
func (k applyKind) find(ctx context.Context, c *client.Client, name string) (raw json.RawMessage, id string, err error) {
	if k == agents { // a name finds one by itself
		err = c.Do(ctx, http.MethodGet, k.path+"/"+url.PathEscape(name), nil, nil, &raw)
		if agented.KindOf(err) == agented.NotFound && err != nil {
			return nil, "", nil
		}
	} else {
		err = pages(ctx, c, k.path, url.Values{"name": {name}}, 0, func(item json.RawMessage) error {
			var row triggerRow
			if err := json.Unmarshal(item, &row); err != nil {
				return err
			}
			if !strings.EqualFold(row.Name, name) {
				return nil
			}
			id = row.ID
			return errFound
		})
		if err == nil || !errors.Is(err, errFound) {
			return nil, "", err
		}
		err = c.Do(ctx, http.MethodGet, k.path+"/"+id, nil, nil, &raw)
	}
	if err != nil {
		return nil, "", err
	}
	var row struct {
		ID string `json:"id"`
	}
	err = json.Unmarshal(raw, &row)
	return raw, row.ID, err
}

// diff lists the fields in which wanted differs from now; nil is nothing yet.
// Values of env are hidden by the server, so they are shown as written anew
// and never printed.
func diff(now, wanted map[string]any) []string {
	var out []string
	for _, field := range slices.Sorted(maps.Keys(wanted)) {
		want := wanted[field]
		have, is := now[field]
		switch {
		case field == "env":
			if env, ok := want.(map[string]any); ok && len(env) > 0 || !reflect.DeepEqual(have, want) && is {
				out = append(out, "~ env: "+strings.Join(slices.Sorted(maps.Keys(env)), ", ")+" (values are hidden)")
			}
		case field == "schedules" && is && sameSchedules(have, want):
		case field == "webhooks":
			if !is {
				out = append(out, "+ webhooks: "+shownWebhooks(want))
			} else if !sameWebhooks(have, want) {
				out = append(out, "~ webhooks: "+shownWebhooks(want))
			}
		case !is:
			out = append(out, fmt.Sprintf("+ %s: %s", field, brief(want)))
		case !reflect.DeepEqual(have, want):
			out = append(out, fmt.Sprintf("~ %s: %s → %s", field, brief(have), brief(want)))
		}
	}
	return out
}

// brief is a value on one line.
func brief(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return "?"
	}
	return printable(string(b))
}

// printYAML writes a trigger as the file that apply takes.
func printYAML(w io.Writer, v map[string]any) error {
	enc := yaml.NewEncoder(w)
	if err := enc.Encode(v); err != nil {
		return err
	}
	return enc.Close()
}
