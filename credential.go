package agented

import "strings"

// OwnCredentials returns the first variable of the spec's own env that is a
// credential of its backend or the address of a provider, or "" if there is
// none. An attempt with such a variable uses no account: it does not wait for
// an account, and its end does not change the state of one.
func (s *Spec) OwnCredentials() string {
	words := wordsOf(s.Backend)
	if words.anyProvider {
		for name := range s.Env {
			if strings.HasSuffix(name, "_API_KEY") || strings.HasSuffix(name, "_AUTH_TOKEN") || strings.HasSuffix(name, "_BASE_URL") {
				return name
			}
		}
	}
	for _, name := range words.credentials {
		if _, there := s.Env[name]; there {
			return name
		}
	}
	return ""
}
