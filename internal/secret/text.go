package secret

import (
	"encoding/base64"
	"strings"

	"github.com/agented/agented"
)

// The purposes under which stored values are sealed. [Key.Derive] requires that a released one is
// never renamed. Package reseal must know where the values of each are.
const (
	PurposeEnv       = "trigger env"
	PurposeAccount   = "account credential"
	PurposeWebhook   = "webhook secret"
	PurposeSecret    = "named secret"
	PurposeChannel   = "channel"
	PurposeSecretUse = "named secret of an attempt"
)

// sealedPrefix begins a text returned by SealText.
const sealedPrefix = "sealed:v1:"

// SealText seals a text as text, for example for a value in a JSON document.
// The name is authenticated: a sealed text opens only under the name that it
// was sealed for.
func (k Key) SealText(purpose, name, text string) string {
	return sealedPrefix + base64.RawStdEncoding.EncodeToString(k.Seal(purpose, []byte(text), []byte(name)))
}

// OpenText returns the text that SealText sealed, or the argument itself if it
// is not sealed. A text sealed with another key is an Invalid error that names
// it.
func (k Key) OpenText(purpose, name, sealed string) (string, error) {
	rest, ok := strings.CutPrefix(sealed, sealedPrefix)
	if !ok {
		return sealed, nil
	}
	b, err := base64.RawStdEncoding.DecodeString(rest)
	if err == nil {
		b, err = k.Open(purpose, b, []byte(name))
	}
	if err != nil {
		return "", agented.Errorf(agented.Invalid, "the value of %s was sealed with another SECRET_KEY: enter it again, or restore the old key", name).Because(err)
	}
	return string(b), nil
}

// Marker returns a text that every text sealed by the key contains, to search for them. Texts of
// another key contain it with a probability of 2^-28.
func (k Key) Marker() string {
	head := append([]byte{sealVersion}, k.id()...)
	// Six digits are 36 of the 40 bits; the next digit depends on what follows.
	return sealedPrefix + base64.RawStdEncoding.EncodeToString(head)[:6]
}
