package secret

import (
	"encoding/base64"
	"strings"

	"github.com/agented/agented"
)

// sealedPrefix begins a text that SealText made.
const sealedPrefix = "sealed:v1:"

// SealText seals a text for a place where only texts can be kept, such as a
// value inside a JSON document. name goes into the seal: a sealed text opens
// under the name that it was sealed for.
func (k Key) SealText(purpose, name, text string) string {
	return sealedPrefix + base64.RawStdEncoding.EncodeToString(k.Seal(purpose, []byte(text), []byte(name)))
}

// OpenText is the text that SealText sealed. A text that is not sealed is
// itself. One that another key sealed is an Invalid error that names it.
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
		return "", agented.Errorf(agented.Invalid, "the value of %s was sealed with another SECRET_KEY: write it anew, or bring the old key back", name).Because(err)
	}
	return string(b), nil
}
