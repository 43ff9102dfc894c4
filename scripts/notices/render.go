package main

import (
	"fmt"
	"strings"
)

const head = `# Third-party notices

Agented has an MIT licence (see LICENSE). Its released programs contain the software
below. ` + "`make generate`" + ` writes this file.

`

// row is a dependency's line in the table.
func row(d *dependency) string {
	return strings.Join(strings.Fields(fmt.Sprintf("| %s | %s %s |", d.kind, d.name, d.version)), " ")
}

// render writes the table of dependencies and each licence text once, with the
// dependencies that it applies to.
func render(deps []*dependency) string {
	var b strings.Builder
	b.WriteString(head + "| from | dependency | licence |\n|---|---|---|\n")
	var order []string
	users := map[string][]string{}
	for _, d := range deps {
		fmt.Fprintf(&b, "%s %s |\n", row(d), strings.Join(d.licences, ", "))
		for _, text := range d.texts {
			if users[text] == nil {
				order = append(order, text)
			}
			users[text] = append(users[text], d.name)
		}
	}
	for _, text := range order {
		fmt.Fprintf(&b, "\n## %s\n\n```text\n%s\n```\n", strings.Join(users[text], ", "), strings.ReplaceAll(text, "```", "'''"))
	}
	return b.String()
}
