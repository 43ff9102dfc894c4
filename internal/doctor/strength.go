package doctor

import (
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/agented/agented/internal/config"
)

// Secrets that are shorter or have less entropy can be guessed.
const (
	shortSecret = 16
	fewBits     = 60
)

// checkSecrets checks the strength of secrets that people chose. Findings do not contain the
// secrets.
func checkSecrets(c *config.Config) []Finding {
	var out []Finding
	for _, s := range []struct {
		name, what string
		secret     config.Secret
	}{
		{"AGENTED_API_KEY", "an attacker who guesses it is an admin", c.APIKey},
		{"GITHUB_WEBHOOK_SECRET", "an attacker who guesses it can fire triggers in GitHub's name", c.GitHubWebhookSecret},
	} {
		if !s.secret.IsSet() {
			continue
		}
		out = append(out, judge(s.name, s.what, s.secret.Reveal(), c.Origin(s.name).String()))
	}
	return append(out, checkSecretFiles(c)...)
}

func judge(name, what, value, from string) Finding {
	f := Finding{ID: "settings.strength." + name, Area: AreaSettings, Name: name, Status: OK}
	f.Text = fmt.Sprintf("%d characters (%s)", len(value), from)
	const fix = "set it to the output of `agented key secret`, here and where it is used"
	switch bits := entropy(value); {
	case len(value) < shortSecret:
		f.Status, f.Fix = Warn, fix
		f.Text = fmt.Sprintf("has %d characters; %s: use %d or more (%s)", len(value), what, shortSecret, from)
	case bits < fewBits:
		f.Status, f.Fix = Warn, fix
		f.Text = fmt.Sprintf("is long but regular, with about %d bits of entropy; %s (%s)", int(bits), what, from)
	}
	return f
}

// entropy estimates the entropy of a text in bits from the frequencies of its characters and from
// repetition.
func entropy(s string) float64 {
	counts, n := map[rune]int{}, 0.0
	for _, r := range s {
		counts[r]++
		n++
	}
	var each float64
	for _, k := range counts {
		p := float64(k) / n
		each -= p * math.Log2(p)
	}
	length := n
	for period := 1; period <= len(s)/2; period++ {
		if strings.HasPrefix(s[period:], s[:len(s)-period]) { // one piece, repeated
			length = float64(period)
			break
		}
	}
	runs := 0.0 // a run such as "abcdef" or "123456" counts as its first character
	for i := 1; i < len(s); i++ {
		if d := int(s[i]) - int(s[i-1]); d >= -1 && d <= 1 {
			runs++
		}
	}
	return each * max(1, length-runs)
}

// checkSecretFiles checks who may read the files that contain secrets. The file of SECRET_KEY is
// checked together with the key.
func checkSecretFiles(c *config.Config) []Finding {
	var out []Finding
	files := c.SecretFiles()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		out = append(out, secretFile(name, files[name])...)
	}
	return out
}

func secretFile(name, path string) []Finding {
	info, err := os.Stat(path)
	// Files that a container runtime mounts are readable by every user in the container.
	if err != nil || info.Mode().Perm()&0o007 == 0 || strings.HasPrefix(path, "/run/secrets/") {
		return nil
	}
	return []Finding{{
		ID: "settings.file." + name, Area: AreaSettings, Name: name, Status: Warn,
		Text: fmt.Sprintf("every user of this machine can read %s (mode %04o)", path, info.Mode().Perm()),
		Fix:  "chmod 600 " + path,
	}}
}
