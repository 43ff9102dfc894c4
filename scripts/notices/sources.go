package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// platforms are those of the release.
var platforms = []string{"linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64"}

// goModules lists the modules of all packages that are linked into the programs on
// any platform, and Go's own library.
func goModules() ([]*dependency, error) {
	type pkg struct {
		Dir    string
		Module *struct {
			Path, Version, Dir string
			Main               bool
			Replace            *struct{ Path, Version, Dir string }
		}
	}
	found := map[string]*dependency{}
	for _, p := range platforms {
		system, arch, _ := strings.Cut(p, "/")
		cmd := exec.Command("go", "list", "-deps", "-json=Dir,Module", "./cmd/agented", "./cmd/agshim")
		cmd.Env = append(cmd.Environ(), "GOOS="+system, "GOARCH="+arch, "CGO_ENABLED=0", "GOFLAGS=")
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("go list for %s: %w", p, err)
		}
		for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
			var v pkg
			if err := dec.Decode(&v); err != nil {
				return nil, fmt.Errorf("go list for %s: %w", p, err)
			}
			m := v.Module
			if m == nil || m.Main {
				continue
			}
			d := found[m.Path]
			if d == nil {
				d = &dependency{kind: "Go", name: m.Path, version: m.Version, dirs: []string{m.Dir}}
				found[m.Path] = d
			}
			// A package may have a licence of its own, in a folder between.
			for dir := v.Dir; len(dir) > len(m.Dir); dir = filepath.Dir(dir) {
				if !slices.Contains(d.dirs, dir) {
					d.dirs = append(d.dirs, dir)
				}
			}
		}
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env GOROOT: %w", err)
	}
	list := []*dependency{{kind: "Go", name: "Go standard library", dirs: []string{strings.TrimSpace(string(root))}}}
	for _, d := range found {
		slices.Sort(d.dirs)
		list = append(list, d)
	}
	byName(list)
	return list, nil
}

// npmPackages lists the packages that web/bundled.json names. The build of the web
// interface fails when that list is not what it bundles.
func npmPackages() ([]*dependency, error) {
	var names []string
	var lock struct {
		Packages map[string]struct{ Version string }
	}
	for path, v := range map[string]any{"web/bundled.json": &names, "web/package-lock.json": &lock} {
		b, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(b, v)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	var list []*dependency
	for _, name := range names {
		p, ok := lock.Packages["node_modules/"+name]
		if !ok {
			return nil, fmt.Errorf("web/package-lock.json has no package %s", name)
		}
		list = append(list, &dependency{kind: "npm", name: name, version: p.Version, dirs: []string{filepath.Join("web/node_modules", name)}})
	}
	byName(list)
	return list, nil
}

func byName(list []*dependency) {
	slices.SortFunc(list, func(a, b *dependency) int { return cmp.Compare(a.name, b.name) })
}
