package doctor

import (
	"errors"
	"fmt"
	"os"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/secret"
)

// checkSettings reports the problems that `agented config check` finds, the mode of the .env
// file, and the state of SECRET_KEY.
func checkSettings(o Options) []Finding {
	var out []Finding
	if o.ConfigErr != nil {
		var e *agented.Error
		const fix = "fix the setting, then run `agented config check`"
		switch {
		case !errors.As(o.ConfigErr, &e):
			out = append(out, Finding{Area: AreaSettings, Name: "settings", Status: Fail, Text: o.ConfigErr.Error(), Fix: fix})
		case len(e.Fields) == 0:
			out = append(out, Finding{Area: AreaSettings, Name: "settings", Status: Fail, Text: e.Text, Fix: fix})
		default:
			for _, field := range e.Fields {
				out = append(out, Finding{Area: AreaSettings, Name: field.Path, Status: Fail, Text: field.Text, Fix: fix})
			}
		}
		return out
	}
	c := o.Config
	if c == nil {
		return out
	}
	for _, w := range c.Warnings {
		f := Finding{Area: AreaSettings, Name: w.Name, Status: Warn, Text: w.Text, Fix: "fix or remove it"}
		if f.Name == "" {
			f.Name = ".env"
		}
		if w.Source != "" {
			f.Text += " (" + w.Source + ")"
			f.Fix += " in " + w.Source
			if w.Source == "environment" {
				f.Fix = "unset it, or correct its name"
			}
		}
		out = append(out, f)
	}
	out = append(out, checkDotenv(c)...)
	out = append(out, checkKey(c)...)
	out = append(out, checkSecrets(c)...)
	return append(out, checkPluginRoot(c)...)
}

// checkDotenv checks who may read the .env file.
func checkDotenv(c *config.Config) []Finding {
	path := c.DotenvPath()
	if path == "" {
		return []Finding{{Area: AreaSettings, Name: ".env", Status: OK, Text: "no .env file in this folder or its parents; environment and defaults apply"}}
	}
	f := Finding{Area: AreaSettings, Name: ".env", Status: OK, Text: "read from " + path}
	holdsSecret := false
	for _, row := range c.Show("", "") {
		holdsSecret = holdsSecret || row.Secret && row.Value != "" && c.Origin(row.Name).Kind == "dotenv"
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 && holdsSecret {
		f.Status = Warn
		f.Text = fmt.Sprintf("%s contains secrets and is readable by other users (mode %04o)", path, info.Mode().Perm())
		f.Fix = "chmod 600 " + path
	}
	return []Finding{f}
}

// checkKey checks SECRET_KEY without creating it.
func checkKey(c *config.Config) []Finding {
	f := Finding{Area: AreaSettings, Name: "SECRET_KEY", Status: OK}
	own := agented.Layout{Root: c.DataDir}.SecretKey()
	k, err := secret.Load(secret.Options{
		Value: c.SecretKey.Reveal(), ValueSource: c.Origin("SECRET_KEY").String(),
		File: c.SecretKeyFile, Path: own, ReadOnly: true,
	})
	switch {
	case errors.Is(err, agented.NotFound):
		f.Text = "none yet; the first start creates one in " + own
	case err != nil:
		f.Status, f.Text = Fail, agented.Message(err)
		f.Fix = "follow the message; a server does not start without its key"
	case len(k.Warnings()) > 0:
		f.Status, f.Text = Warn, k.Warnings()[0]
		f.Fix = "set SECRET_KEY to the output of `agented key secret`, preferably before secrets are stored"
	case guessable(c.SecretKey.Reveal()):
		f.Status, f.Text = Warn, "has very few different characters and can be guessed ("+k.Source()+")"
		f.Fix = "set SECRET_KEY to the output of `agented key secret`, preferably before secrets are stored"
	default:
		f.Text = fmt.Sprintf("from %s, fingerprint %s", k.Source(), k.Fingerprint())
	}
	return []Finding{f}
}

// guessable reports whether a key repeats a few characters. A random key of 16 or more characters
// has far more than five different ones.
func guessable(key string) bool {
	seen := map[rune]bool{}
	for _, r := range key {
		seen[r] = true
	}
	return key != "" && len(seen) < 6
}
