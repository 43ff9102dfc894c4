package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

func (s setting) defaultText() string {
	if s.shown != "" {
		return s.shown
	}
	return s.def
}

// EnvExample returns the content of `.env.example`: every setting with its
// help, commented out, so that a copy changes nothing until a line is
// uncommented.
func EnvExample() string {
	var b strings.Builder
	b.WriteString(`# Settings of Agented. Copy this file to .env and uncomment the lines that you change.
# A variable in the real environment takes precedence over this file. Put comments on
# lines of their own, and quote values that contain spaces or #.
# Generated from internal/config; every setting: docs/reference/configuration.md
`)
	for _, s := range settings() {
		if s.system {
			continue
		}
		if s.sectionOfItsOwn {
			fmt.Fprintf(&b, "\n# ---- %s ----\n", s.section)
		}
		b.WriteString("\n")
		help := s.help
		switch {
		case s.shown != "":
			help += " Default: " + s.shown + "."
		case s.def == "":
			help += " Default: unset."
		}
		for _, line := range wrap(help, 86) {
			b.WriteString("# " + line + "\n")
		}
		value := s.def
		if s.shown != "" {
			value = ""
		}
		fmt.Fprintf(&b, "#%s=%s\n", s.name, value)
	}
	return b.String()
}

// Reference returns the content of docs/reference/configuration.md.
func Reference() string {
	var b strings.Builder
	b.WriteString(`# Configuration

<!-- Generated from internal/config by ` + "`go test ./internal/config -update`" + `. Do not edit. -->

All settings are environment variables. ` + "`agented config show`" + ` prints every value in use and where it
came from, with secrets masked; ` + "`agented config check`" + ` checks them.

## Where values come from

1. The real environment.
2. A ` + "`.env`" + ` file: the one named with ` + "`--env-file`" + `, which must exist, otherwise the first one found in
   the working directory and the folders above it. A file in a folder above that belongs to another
   user (and not to root) is ignored with a warning.
3. The default.

- The first source that contains the variable is used. A variable that is empty in the real
  environment has its default, even if ` + "`.env`" + ` has a value.
- An older name is looked up after the new one in the same source: ` + "`GUNICORN_BIND`" + ` in the
  environment takes precedence over ` + "`AGENTED_BIND`" + ` in ` + "`.env`" + `.
- A secret can be given as a file: ` + "`NAME_FILE`" + ` contains its path. One line break at the end of the
  file is removed.
- Relative paths in the environment are relative to the working directory, those in ` + "`.env`" + ` to the folder of
  that file. A leading ` + "`~/`" + ` stands for the home folder.
- Durations are written ` + "`300`" + ` (seconds), ` + "`300s`, `5m` or `1h`" + `; lists are separated by commas.
- A name that begins with ` + "`AGENTED_`" + ` and is not a setting is reported with the nearest setting.
- Invalid settings stop the start. All of them are reported at once, each with the variable, what is
  wrong with its value, and the fix.

The ` + "`.env`" + ` file has the grammar of python-dotenv: ` + "`export`" + `, single and double quotes, escapes in
double quotes, values over several lines, ` + "`${NAME}` and `${NAME:-default}`" + `, comments. A ` + "`#`" + ` begins a comment
only after a space. A lone ` + "`$`" + ` is kept. A
line that cannot be parsed is skipped and reported with its number; if it names a setting, it is an error.
`)
	for _, s := range settings() {
		if s.sectionOfItsOwn {
			fmt.Fprintf(&b, "\n## %s\n\n", s.section)
			if s.system {
				b.WriteString("Read only from the real environment, never from `.env`.\n\n")
			}
			b.WriteString("| name | default | meaning |\n|---|---|---|\n")
		}
		def := s.defaultText()
		if s.shown == "" && def != "" {
			def = "`" + def + "`"
		}
		if def == "" {
			def = "unset"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", s.nameCell(), def, s.meaningCell())
	}
	b.WriteString("\n## Set by the server\n\nThe server sets these for the processes that it starts.\n\n| name | meaning |\n|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(setByServer)) {
		fmt.Fprintf(&b, "| `%s` | %s |\n", name, setByServer[name])
	}
	fmt.Fprintf(&b, "\nUnder systemd, `%s` are also read, according to its protocol.\n", strings.Join(readBySystemd, "`, `"))
	return b.String()
}

func (s setting) nameCell() string {
	cell := "`" + s.name + "`"
	if s.old != "" {
		cell += "<br>old name `" + s.old + "`"
	}
	if s.fileName != "" {
		cell += "<br>or `" + s.fileName + "`"
	}
	return cell
}

func (s setting) meaningCell() string {
	cell := s.help
	if len(s.choice) > 0 {
		cell += " One of `" + strings.Join(s.choice, "`, `") + "`."
	}
	if len(s.backends) > 0 {
		cell += " Passed to " + strings.Join(s.backends, " and ") + " only."
	}
	return strings.ReplaceAll(cell, "|", `\|`)
}

// wrap breaks text into lines of at most width characters.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
