package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// permitted are the licences that allow distribution as part of an MIT program, with
// their texts included.
var permitted = []string{"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "public domain"}

// dependency is a Go module or an npm package.
type dependency struct {
	kind     string // "Go" or "npm"
	name     string
	version  string
	dirs     []string // folders whose licence files apply, outermost first
	licences []string // SPDX identifiers, sorted
	texts    []string
}

// licenceFile matches the names of licence files. NOTICE files must be shipped with
// Apache-2.0 code.
var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|unlicense)([-.].*)?$`)

// link matches a Markdown link; only its text is kept.
var link = regexp.MustCompile(`\[([^\]]*)\]\(https://[^)]*\)`)

// readLicence sets licences and texts.
func (d *dependency) readLicence() error {
	for _, dir := range d.dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		for _, e := range entries {
			name := strings.ToLower(e.Name())
			if e.IsDir() || !licenceFile.MatchString(name) || strings.HasSuffix(name, ".go") || strings.Contains(name, "logo") {
				continue
			}
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				return err
			}
			text := strings.TrimSpace(link.ReplaceAllString(strings.ReplaceAll(string(b), "\r\n", "\n"), "$1"))
			if text == "" || slices.Contains(d.texts, text) {
				continue
			}
			d.texts = append(d.texts, text)
			// Collected notices also cover what a module only uses in its tests.
			if !strings.HasPrefix(name, "notice") && !strings.Contains(name, "3rd-party") {
				d.licences = append(d.licences, identify(text)...)
			}
		}
	}
	slices.Sort(d.licences)
	d.licences = slices.Compact(d.licences)
	if len(d.licences) == 0 {
		return fmt.Errorf("%s %s has no licence file in %v", d.kind, d.name, d.dirs)
	}
	for _, l := range d.licences {
		if !slices.Contains(permitted, l) {
			return fmt.Errorf("%s %s has the licence %s, which is not in the list of permitted licences", d.kind, d.name, l)
		}
	}
	return nil
}

// identify returns the SPDX identifiers of the licences in text, or "unknown".
func identify(text string) (out []string) {
	t := strings.Join(strings.Fields(text), " ")
	has := func(phrase string) bool { return strings.Contains(strings.ToLower(t), strings.ToLower(phrase)) }
	add := func(id string, found bool) {
		if found {
			out = append(out, id)
		}
	}
	add("GPL", has("GNU General Public License") || has("GNU Lesser General Public License") || has("GNU Affero"))
	add("MPL-2.0", has("Mozilla Public License"))
	add("Apache-2.0", has("Apache License") && has("Version 2.0"))
	add("MIT", has("Permission is hereby granted, free of charge"))
	isc := has("Permission to use, copy, modify, and/or distribute this software for any purpose") || has("Permission to use, copy, modify, and distribute this software for any purpose")
	add("ISC", isc && has("provided that the above"))
	add("0BSD", isc && !has("provided that the above"))
	bsd := has("Redistribution and use in source and binary forms")
	three := has("Neither the name") || has("may not be used to endorse") || has("may be used to endorse")
	add("BSD-3-Clause", bsd && three)
	add("BSD-2-Clause", bsd && !three)
	add("public domain", len(out) == 0 && has("public domain"))
	if len(out) == 0 {
		out = []string{"unknown"}
	}
	return out
}
