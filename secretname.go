package agented

import "strings"

// SecretName reports whether the name of an environment variable suggests that
// its value is a secret.
func SecretName(name string) bool {
	upper := strings.ToUpper(name)
	for _, word := range []string{"SECRET", "TOKEN", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "PRIVATE", "AUTH", "COOKIE", "DSN"} {
		if strings.Contains(upper, word) {
			return true
		}
	}
	for part := range strings.SplitSeq(upper, "_") {
		if part == "KEY" || part == "APIKEY" || part == "PASS" || part == "PWD" || part == "PAT" {
			return upper != "PWD" && upper != "OLDPWD"
		}
	}
	return false
}
