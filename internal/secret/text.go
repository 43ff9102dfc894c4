package secret

import (
	"encoding/base64"
	"strings"

	"github.com/agented/agented"
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
