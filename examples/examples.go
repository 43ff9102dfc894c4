// Package examples holds trigger files to start from.
package examples

import (
	"embed"
	"io/fs"
	"path"
	"strings"
)

//go:embed *.yaml
var files embed.FS

// Example is a trigger file with a comment that says what to set before use.
type Example struct {
	Name    string `json:"name"`    // of the file without its ending, and of the trigger
	Summary string `json:"summary"` // one sentence
	YAML    string `json:"yaml"`
}

// List returns all examples, sorted by name.
func List() []Example {
	names, err := fs.Glob(files, "*.yaml")
	if err != nil {
		panic(err) // the pattern is constant
	}
	out := make([]Example, 0, len(names))
	for _, name := range names {
		b, err := files.ReadFile(name)
		if err != nil {
			panic(err) // the file is part of the program
		}
		text := string(b)
		first, _, _ := strings.Cut(text, "\n")
		out = append(out, Example{Name: strings.TrimSuffix(path.Base(name), ".yaml"), Summary: strings.TrimPrefix(first, "# "), YAML: text})
	}
	return out
}

// Find returns the example of that name.
func Find(name string) (Example, bool) {
	for _, e := range List() {
		if e.Name == name {
			return e, true
		}
	}
	return Example{}, false
}
