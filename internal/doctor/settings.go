package doctor

import (
	"errors"
	"fmt"
	"os"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/secret"
)

// checkSettings reports what `agented config check` would, the .env file's
// mode, and the SECRET_KEY.
func checkSettings(o Options) []Finding {
	var out []Finding
	if o.ConfigErr != nil {
		var e *agented.Error
		const mend = "mend the setting, then run `agented config check`"
		switch {
		case !errors.As(o.ConfigErr, &e):
			out = append(out, Finding{Area: AreaSettings, Name: "settings", Status: Fail, Text: o.ConfigErr.Error(), Mend: mend})
		case len(e.Fields) == 0:
			out = append(out, Finding{Area: AreaSettings, Name: "settings", Status: Fail, Text: e.Text, Mend: mend})
		default:
			for _, field := range e.Fields {
				out = append(out, Finding{Area: AreaSettings, Name: field.Path, Status: Fail, Text: field.Text, Mend: mend})
			}
		}
		return out
	}
	c := o.Config
	if c == nil {
		return out
	}
	for _, w := range c.Warnings {
		f := Finding{Area: AreaSettings, Name: w.Name, Status: Warn, Text: w.Text, Mend: "mend or remove it"}
		if f.Name == "" {
			f.Name = ".env"
		}
		if w.Source != "" {
			f.Text += " (" + w.Source + ")"
			f.Mend += " in " + w.Source
			if w.Source == "environment" {
				f.Mend = "unset it, or correct its name"
			}
		}
		out = append(out, f)
	}
	out = append(out, checkDotenv(c)...)
	out = append(out, checkKey(c)...)
	out = append(out, checkSecrets(c)...)
	return append(out, checkPluginRoot(c)...)
}

// checkDotenv looks at who may read the .env file.
func checkDotenv(c *config.Config) []Finding {
	path := c.DotenvPath()
	if path == "" {
		return []Finding{{Area: AreaSettings, Name: ".env", Status: OK, Text: "none here or above; the environment and the defaults count"}}
	}
	f := Finding{Area: AreaSettings, Name: ".env", Status: OK, Text: "read from " + path}
	holdsSecret := false
	for _, row := range c.Show("", "") {
		holdsSecret = holdsSecret || row.Secret && row.Value != "" && c.Origin(row.Name).Kind == "dotenv"
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 && holdsSecret {
		f.Status = Warn
		f.Text = fmt.Sprintf("%s holds secrets and is open to other users (mode %04o)", path, info.Mode().Perm())
		f.Mend = "chmod 600 " + path
	}
	return []Finding{f}
}

// checkKey looks at the SECRET_KEY without making one.
func checkKey(c *config.Config) []Finding {
	f := Finding{Area: AreaSettings, Name: "SECRET_KEY", Status: OK}
	own := agented.Layout{Root: c.DataDir}.SecretKey()
	k, err := secret.Load(secret.Options{
		Value: c.SecretKey.Reveal(), ValueSource: c.Origin("SECRET_KEY").String(),
		File: c.SecretKeyFile, Path: own, ReadOnly: true,
	})
	switch {
	case errors.Is(err, agented.NotFound):
		f.Text = "none yet; the first start makes one in " + own
	case err != nil:
		f.Status, f.Text = Fail, agented.Message(err)
		f.Mend = "do what the sentence says; a server does not start without its key"
	case len(k.Warnings()) > 0:
		f.Status, f.Text = Warn, k.Warnings()[0]
		f.Mend = "set SECRET_KEY to what `agented key secret` prints, best before anything is sealed with this one"
	case guessable(c.SecretKey.Reveal()):
		f.Status, f.Text = Warn, "is made of very few different characters and can be guessed ("+k.Source()+")"
		f.Mend = "set SECRET_KEY to what `agented key secret` prints, best before anything is sealed with this one"
	default:
		f.Text = fmt.Sprintf("from %s, fingerprint %s", k.Source(), k.Fingerprint())
	}
	return []Finding{f}
}

// guessable reports whether a key that somebody chose repeats a few characters.
// A random one of 16 or more has far more than five.
func guessable(key string) bool {
	seen := map[rune]bool{}
	for _, r := range key {
		seen[r] = true
	}
	return key != "" && len(seen) < 6
}
