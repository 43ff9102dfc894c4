package secret

import (
	"errors"
	"strings"
	"testing"

	"github.com/agented/agented"
)

func TestSealText(t *testing.T) {
	t.Parallel()
	key, other := newKey("0123456789abcdef0123456789abcdef", "test"), newKey("fedcba9876543210fedcba9876543210", "test")
	const text = "a value that nobody may read"
	sealed := key.SealText("env", "TOKEN", text)
	if strings.Contains(sealed, "value") || sealed == key.SealText("env", "TOKEN", text) {
		t.Errorf("sealed to %q", sealed)
	}
	if got, err := key.OpenText("env", "TOKEN", sealed); err != nil || got != text {
		t.Errorf("opened to %q, %v", got, err)
	}
	if got, err := key.OpenText("env", "TOKEN", text); err != nil || got != text {
		t.Errorf("a text that is not sealed opens to %q, %v", got, err)
	}
	for name, open := range map[string]func() (string, error){
		"another key":     func() (string, error) { return other.OpenText("env", "TOKEN", sealed) },
		"another name":    func() (string, error) { return key.OpenText("env", "OTHER", sealed) },
		"another purpose": func() (string, error) { return key.OpenText("webhook", "TOKEN", sealed) },
		"damaged":         func() (string, error) { return key.OpenText("env", "TOKEN", sealed[:len(sealed)-4]+"AAAA") },
	} {
		if got, err := open(); !errors.Is(err, agented.Invalid) || got != "" {
			t.Errorf("%s: opened to %q, %v", name, got, err)
		}
	}
}
