package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/app"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/serverlog"
	"github.com/agented/agented/internal/term"
)

func configCommand() *cobra.Command {
	c := group("config", "Show and check the settings", configShow(), configCheck())
	c.GroupID = "server"
	return c
}

func configShow() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "show", Short: "Show every setting, its value and its source", Args: exactArgs(),
		Long: `Show every setting that a server started here would use, with its source: the
environment, a line of .env, or the default. Secrets are masked.`,
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
				err = term.PrintJSON(os.Stdout, map[string]any{"items": rows, "env_file": c.DotenvPath()})
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

// readKey loads the SECRET_KEY that a server would use. It does not create one: a missing key is
// a NotFound error.
func readKey(c *config.Config) (secret.Key, error) {
	return secret.Load(secret.Options{
		Value: c.SecretKey.Reveal(), ValueSource: c.Origin("SECRET_KEY").String(),
		File: c.SecretKeyFile, Path: agented.Layout{Root: c.DataDir}.SecretKey(), ReadOnly: true,
	})
}

// keyInUse returns the location and the fingerprint of SECRET_KEY. The fingerprint is empty if
// there is no usable key. A key that does not exist yet is no error.
func keyInUse(c *config.Config) (source, fingerprint string, err error) {
	k, err := readKey(c)
	switch {
	case err == nil:
		return k.Source(), k.Fingerprint(), nil
	case errors.Is(err, agented.NotFound):
		return "created at the first start in " + agented.Layout{Root: c.DataDir}.SecretKey(), "", nil
	case c.SecretKeyFile != "":
		return c.SecretKeyFile + ", cannot be used", "", err
	}
	return agented.Layout{Root: c.DataDir}.SecretKey() + ", cannot be used", "", err
}

// showRows prints the settings in columns, under the headings of the reference page, with
// complete values.
func showRows(w io.Writer, rows []config.Row) error {
	var name, value int
	for i := range rows {
		if rows[i].Value == "" {
			rows[i].Value = "-"
		}
		rows[i].Value = term.Printable(rows[i].Value)
		name = max(name, len(rows[i].Name))
		// One long value must not push all sources off the screen.
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
			b.WriteString(term.Paint(os.Stdout, term.Cyan, section) + "\n")
		}
		source := r.Source
		if source == "default" && r.Value == "-" && r.Default != "" {
			source += ": " + term.Printable(r.Default)
		}
		fmt.Fprintf(&b, "  %-*s  %-*s  %s\n", name, r.Name, value, r.Value, term.Paint(os.Stdout, term.Faint, source))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// configProblem is a problem of the settings, as `config check` prints it.
type configProblem struct {
	Name   string `json:"name"`             // the variable; empty for a line of .env
	Text   string `json:"text"`             // the problem and its fix
	Source string `json:"source,omitempty"` // the location, unless the text contains it
}

func (p configProblem) String() string {
	return config.Problem{Name: p.Name, Source: p.Source, Text: p.Text}.String()
}

func configCheck() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "check", Short: "Check the settings without starting a server", Args: exactArgs(),
		Long: `Check the settings that a server started here would use. Every problem is
listed with its variable and the fix, and the exit code is 2. The command runs all
checks that ` + "`agented serve`" + ` runs before it listens: values, key, prices, backup
schedule, certificates, collector addresses, folders and the database. Warnings do
not change the exit code.`,
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
				for _, f := range checkStart(c) {
					problems = append(problems, configProblem{Name: f.Path, Text: f.Text})
				}
				key, _ := readKey(c)
				for _, text := range key.Warnings() {
					warnings = append(warnings, configProblem{Name: "SECRET_KEY", Text: text, Source: key.Source()})
				}
			}
			if wantJSON(cmd) {
				if err := term.PrintJSON(os.Stdout, map[string]any{"ok": len(problems) == 0, "problems": problems, "warnings": warnings}); err != nil {
					return err
				}
			} else {
				for _, w := range warnings {
					fmt.Fprintln(os.Stderr, term.Paint(os.Stderr, term.Yellow, "!")+" "+term.Printable(w.String()))
				}
				for _, p := range problems {
					fmt.Fprintln(os.Stderr, term.Paint(os.Stderr, term.Red, "✗")+" "+term.Printable(p.String()))
				}
			}
			if len(problems) > 0 {
				return exitError(exitUsage)
			}
			if !wantJSON(cmd) {
				fmt.Println(term.Paint(os.Stdout, term.Green, "✓") + " ok: " + readFrom(c))
			}
			return nil
		},
	})
}

// readFrom names the sources that the settings were read from.
func readFrom(c *config.Config) string {
	if path := c.DotenvPath(); path != "" {
		return "the settings are valid (environment and " + path + ")"
	}
	return "the settings are valid (environment; no .env file found)"
}

// problemsOf lists the problems of settings that could not be loaded.
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

// warn prints warnings about the settings.
func warn(list []config.Problem) {
	for _, w := range list {
		fmt.Fprintln(os.Stderr, term.Paint(os.Stderr, term.Yellow, "agented: "+term.Printable(w.String())))
	}
}

// checkStart returns every problem that would keep a server with these settings from starting.
// `config check` prints them; `serve` refuses to start.
func checkStart(c *config.Config) []agented.Field {
	return append(app.Check(c), serverlog.Check(c)...)
}
