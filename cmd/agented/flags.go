package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// wantJSON reports whether --json was given.
func wantJSON(cmd *cobra.Command) bool {
	on, err := cmd.Flags().GetBool("json")
	return err == nil && on
}

func jsonFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().Bool("json", false, "print JSON for scripts")
	return cmd
}

func rawFlag(cmd *cobra.Command) {
	cmd.Flags().Bool("raw", false, "print an agent's output as its CLI prints it, with escape sequences")
}

// flagMistake rewrites the error of a flag's value without the texts of the parsing libraries.
func flagMistake(err error) error {
	var value *pflag.InvalidValueError
	if !errors.As(err, &value) {
		return err
	}
	flag := value.GetFlag()
	name := "--" + flag.Name
	wants := map[string]string{
		"int": "a whole number, such as 20", "int64": "a whole number, such as 20", "float64": "a number, such as 1.5",
		"bool": "true or false", "duration": "a duration, such as 90, 90s, 5m, 2h or 1d",
		"stringToString": "NAME=VALUE",
	}[flag.Value.Type()]
	if wants == "" {
		return err
	}
	return fmt.Errorf("%s %q: use %s", name, value.GetValue(), wants)
}

// durationFlag is a flag value with the syntax of durations in the settings: a number of seconds,
// or a number with a unit.
type durationFlag time.Duration

var days = regexp.MustCompile(`^(\d+(?:\.\d+)?)d`)

// Set parses a duration.
func (d *durationFlag) Set(text string) error {
	s := strings.TrimSpace(text)
	if n, err := strconv.ParseFloat(s, 64); err == nil {
		*d = durationFlag(n * float64(time.Second))
		return nil
	}
	var whole time.Duration
	if m := days.FindStringSubmatch(s); m != nil {
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return err
		}
		whole, s = time.Duration(n*24*float64(time.Hour)), strings.TrimPrefix(s, m[0])
	}
	if s != "" {
		more, err := time.ParseDuration(s)
		if err != nil {
			return err
		}
		whole += more
	}
	*d = durationFlag(whole)
	return nil
}

// String formats the duration.
func (d *durationFlag) String() string { return time.Duration(*d).String() }

// Type is the type name in help texts, and the name by which pflag finds the value.
func (d *durationFlag) Type() string { return "duration" }

// addDuration adds a flag for a duration that GetDuration reads.
func addDuration(f *pflag.FlagSet, name string, value time.Duration, usage string) {
	d := durationFlag(value)
	f.Var(&d, name, usage)
	if value == 0 {
		f.Lookup(name).DefValue = "0" // hides the default in help texts
	}
}
