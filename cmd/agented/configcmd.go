package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
)

func configCommand() *cobra.Command {
	c := group("config", "Show and check the settings", configShow(), configCheck())
	c.GroupID = "server"
	return c
}

func configShow() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "show", Short: "Show every setting, its value and where it came from", Args: exactArgs(),
		Long: `Show every setting that a server started here would use, with where it came
from: the environment, a line of .env, or the default. Secrets are masked.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := serverConfig(cmd)
			if err != nil {
				return err
			}
			source, fingerprint, keyErr := keyInUse(c)
			rows := c.Show(source, fingerprint)
			for i := range rows {
				if rows[i].Name == "SECRET_KEY" && fingerprint == "" {
					rows[i].Value, rows[i].Source = "", source
				}
			}
			if wantJSON(cmd) {
				err = printJSON(os.Stdout, map[string]any{"items": rows, "env_file": c.DotenvPath()})
			} else {
				err = showRows(os.Stdout, rows)
			}
			if err != nil {
				return err
			}
			warn(c.Warnings)
			return keyErr
		},
	})
}

// serverConfig reads the settings of a server.
func serverConfig(cmd *cobra.Command) (*config.Config, error) {
	file, _ := cmd.Flags().GetString("env-file")
	return config.Load(config.Options{EnvFile: file})
}

// readKey loads the SECRET_KEY that a server would use. None is made: without
// one the error is NotFound.
func readKey(c *config.Config) (secret.Key, error) {
	return secret.Load(secret.Options{
		Value: c.SecretKey.Reveal(), ValueSource: c.Origin("SECRET_KEY").String(),
		File: c.SecretKeyFile, Path: agented.Layout{Root: c.DataDir}.SecretKey(), ReadOnly: true,
	})
}

// keyInUse says where the SECRET_KEY is and what its fingerprint is, which is
// empty when there is no key that could be used. That none was made yet is no
// error.
func keyInUse(c *config.Config) (source, fingerprint string, err error) {
	k, err := readKey(c)
	switch {
	case err == nil:
		return k.Source(), k.Fingerprint(), nil
	case errors.Is(err, agented.NotFound):
		return "made at the first start in " + agented.Layout{Root: c.DataDir}.SecretKey(), "", nil
	case c.SecretKeyFile != "":
		return c.SecretKeyFile + ", cannot be used", "", err
	}
	return agented.Layout{Root: c.DataDir}.SecretKey() + ", cannot be used", "", err
}

// showRows writes the settings for people: under the headings of the reference
// page, whole values, in columns.
func showRows(w io.Writer, rows []config.Row) error {
	var name, value int
	for i := range rows {
		if rows[i].Value == "" {
			rows[i].Value = "-"
		}
		rows[i].Value = oneLine(rows[i].Value)
		name = max(name, len(rows[i].Name))
		// One long value must not push all sources out of sight.
		if n := len(rows[i].Value); n <= 40 {
			value = max(value, n)
		}
	}
	var b strings.Builder
	section := ""
	for _, r := range rows {
		if r.Section != section {
			if section != "" {
				b.WriteByte('\n')
			}
			section = r.Section
			b.WriteString(paint(os.Stdout, cyan, section) + "\n")
		}
		source := r.Source
		if source == "default" && r.Value == "-" && r.Default != "" {
			source += ": " + oneLine(r.Default)
		}
		fmt.Fprintf(&b, "  %-*s  %-*s  %s\n", name, r.Name, value, r.Value, paint(os.Stdout, faint, source))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// oneLine makes a text safe for a terminal without shortening it.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// configProblem is something to mend, as `config check` prints it.
type configProblem struct {
	Name   string `json:"name"`             // the variable; empty for a line of .env
	Text   string `json:"text"`             // what is wrong, and the mend
	Source string `json:"source,omitempty"` // where it stands, unless the text says so
}

func (p configProblem) String() string {
	return config.Problem{Name: p.Name, Source: p.Source, Text: p.Text}.String()
}

func configCheck() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "check", Short: "Check the settings without starting a server", Args: exactArgs(),
		Long: `Check the settings that a server started here would use. Every problem is
listed with its variable and how to mend it, and the exit code is 2. So is a
database that a newer version has written. Warnings do not change the exit code,
which is 0 then.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			problems, warnings := []configProblem{}, []configProblem{}
			c, err := serverConfig(cmd)
			switch {
			case err != nil:
				problems = problemsOf(err)
			default:
				for _, w := range c.Warnings {
					warnings = append(warnings, configProblem{Name: w.Name, Text: w.Text, Source: w.Source})
				}
				key, err := readKey(c)
				if err != nil && !errors.Is(err, agented.NotFound) {
					problems = append(problems, configProblem{Name: "SECRET_KEY", Text: agented.Message(err)})
				}
				if err := store.Admits(c.DBPath); err != nil {
					problems = append(problems, configProblem{Name: "AGENTED_DB_PATH", Text: agented.Message(err)})
				}
				for _, text := range key.Warnings() {
					warnings = append(warnings, configProblem{Name: "SECRET_KEY", Text: text, Source: key.Source()})
				}
			}
			if wantJSON(cmd) {
				if err := printJSON(os.Stdout, map[string]any{"ok": len(problems) == 0, "problems": problems, "warnings": warnings}); err != nil {
					return err
				}
			} else {
				for _, w := range warnings {
					fmt.Fprintln(os.Stderr, paint(os.Stderr, yellow, "!")+" "+oneLine(w.String()))
				}
				for _, p := range problems {
					fmt.Fprintln(os.Stderr, paint(os.Stderr, red, "✗")+" "+oneLine(p.String()))
				}
			}
			if len(problems) > 0 {
				return exitError(exitUsage)
			}
			if !wantJSON(cmd) {
				fmt.Println(paint(os.Stdout, green, "✓") + " ok: " + readFrom(c))
			}
			return nil
		},
	})
}

// readFrom says in a few words what the settings were read from.
func readFrom(c *config.Config) string {
	if path := c.DotenvPath(); path != "" {
		return "the settings can be used (environment and " + path + ")"
	}
	return "the settings can be used (environment; no .env found)"
}

// problemsOf lists what is wrong with settings that could not be loaded.
func problemsOf(err error) []configProblem {
	var e *agented.Error
	if !errors.As(err, &e) {
		return []configProblem{{Text: err.Error()}}
	}
	if len(e.Fields) == 0 {
		return []configProblem{{Text: e.Text}}
	}
	list := []configProblem{}
	for _, f := range e.Fields {
		list = append(list, configProblem{Name: f.Path, Text: f.Text})
	}
	return list
}

// warn prints warnings of the settings for people.
func warn(list []config.Problem) {
	for _, w := range list {
		fmt.Fprintln(os.Stderr, paint(os.Stderr, yellow, "agented: "+oneLine(w.String())))
	}
}
