// Package manifest reads trigger and agent files, and compares them with the objects of the server.
package manifest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v4"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/naming"
	"github.com/agented/agented/internal/term"
)

// Kind is the kind of the objects of a file.
type Kind string

// The kinds of objects.
const (
	Trigger Kind = "trigger"
	Agent   Kind = "agent"
)

// Item is one trigger or agent of a file.
type Item struct {
	where string // "hello.yaml" or "hello.yaml, document 2"
	name  string
	Body  map[string]any
	Notes []string // one note per rewritten legacy field
	lines yamlItem
}

// Read reads all objects of kind k from a file or a folder. It returns an error before anything
// is sent if one of them is invalid.
func (k Kind) Read(ctx context.Context, path string) ([]Item, error) {
	if path == "-" {
		b, err := term.ReadStdin(ctx, "the file", 16<<20)
		if err != nil {
			return nil, err
		}
		return k.parse("standard input", b)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, agented.Errorf(agented.NotFound, "%s does not exist: check the path", path)
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
			return nil, agented.Errorf(agented.NotFound, "%s contains no .yaml, .yml or .json file", path)
		}
	}
	var out []Item
	for _, p := range paths {
		b, err := term.ReadFile(ctx, p)
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
		key := naming.Key(w.name)
		if first, twice := seen[key]; twice {
			return nil, agented.Errorf(agented.Invalid, "%s: %s %q is already defined in %s: remove one of the two", w.where, k, w.name, first)
		}
		seen[key] = w.where
	}
	return out, nil
}

// parse reads YAML documents; JSON is a subset of YAML. Each document is one object or a list of
// objects.
func (k Kind) parse(file string, b []byte) ([]Item, error) {
	items, err := yamlItems(file, b)
	if err != nil {
		return nil, err
	}
	var out []Item
	for _, i := range items {
		where := file
		if i.document > 1 {
			where = fmt.Sprintf("%s, document %d", file, i.document)
		}
		if scalarKind(i.node) == "empty" || i.node.Kind == 0 {
			continue // an empty document
		}
		if bad := i.mistypedValues(); len(bad) > 0 {
			e := agented.Errorf(agented.Invalid, "%s: %s %q contains values that YAML does not read as text", where, k, i.at("name").Value)
			e.Fields = bad
			return nil, e
		}
		var item any
		if err := i.node.Decode(&item); err != nil {
			return nil, agented.Errorf(agented.Invalid, "%s", yamlMistake(where, b, err))
		}
		body, ok := item.(map[string]any)
		name, _ := body["name"].(string)
		switch {
		case !ok:
			return nil, agented.Errorf(agented.Invalid, "%s, line %d: each %s must be a mapping with fields such as name: and backend:", where, i.node.Line, k)
		case name == "":
			return nil, agented.Errorf(agented.Invalid, "%s, line %d: the %s has no name: add a name: field", where, i.node.Line, k)
		}
		// The value goes through JSON so that it can be compared with the server's answer.
		enc, err := json.Marshal(body)
		if err != nil {
			return nil, agented.Errorf(agented.Invalid, "%s: %s %q: %v", where, k, name, err)
		}
		body = nil
		if err := json.Unmarshal(enc, &body); err != nil {
			return nil, err
		}
		for _, own := range []string{"id", "etag", "created_at", "updated_at", "next_run_at", "webhook_url", "last_execution", "hints"} {
			delete(body, own) // accept the output of `trigger show`
		}
		if k != Trigger {
			out = append(out, Item{where, name, body, nil, i})
			continue
		}
		notes, err := convertSchedules(body)
		if err != nil {
			return nil, agented.Errorf(agented.Invalid, "%s: %s %q: %s", where, k, name, agented.Message(err))
		}
		more, err := convertWebhooks(body)
		if err != nil {
			return nil, agented.Errorf(agented.Invalid, "%s: %s %q: %s", where, k, name, agented.Message(err))
		}
		out = append(out, Item{where, name, body, append(notes, more...), i})
	}
	if len(out) == 0 {
		return nil, agented.Errorf(agented.Invalid, "%s contains no %s", file, k)
	}
	return out, nil
}

// WriteYAML writes a trigger in the format that apply accepts.
func WriteYAML(w io.Writer, v map[string]any) error {
	enc := yaml.NewEncoder(w)
	if err := enc.Encode(v); err != nil {
		return err
	}
	return enc.Close()
}
