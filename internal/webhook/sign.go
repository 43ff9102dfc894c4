package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// OnlyVerifies reports whether the secret is a public key, which cannot sign.
func (a Auth) OnlyVerifies(secret string) bool {
	switch a.Kind {
	case KindStandard, KindSvix:
		return strings.HasPrefix(secret, "whpk_")
	case KindHMAC, KindDiscord:
		return a.scheme().algorithm == AlgorithmEd25519
	}
	return false
}

// Sign sets the headers that prove a call authentic, as its sender would:
// [Auth.Verify] with the same secret accepts it, unless [Auth.OnlyVerifies].
// The id becomes the delivery id if the sender puts it into a header. Of
// several secrets the first one signs.
func (a Auth) Sign(secret, id string, h http.Header, body []byte, now time.Time) {
	r := Request{Header: h, Body: body}
	if list := SplitSecrets(secret); len(list) > 0 {
		secret = list[0]
	}
	stamp := strconv.FormatInt(now.Unix(), 10)
	switch {
	case a.Kind == KindStandard || a.Kind == KindSvix || a.Kind == KindGitLab && strings.HasPrefix(secret, "whsec_"):
		prefix := standardHeaders[0]
		if a.Kind == KindSvix {
			prefix = standardHeaders[1]
		}
		key, _ := standardKey(secret)
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + stamp + "."))
		mac.Write(r.Body)
		h.Set(prefix+"Id", id)
		h.Set(prefix+"Timestamp", stamp)
		h.Set(prefix+"Signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
		return
	case a.Kind == KindGitLab:
		h.Set("X-Gitlab-Token", secret)
	case a.Kind == KindBearer && a.Header == "":
		h.Set("Authorization", "Bearer "+secret)
	case a.Kind == KindBearer:
		h.Set(a.Header, a.Prefix+secret)
	case a.Kind != KindUnsigned:
		a.signScheme(secret, id, stamp, r)
		return
	}
	a.setID(a.scheme(), id, h)
}

func (a Auth) signScheme(secret, id, stamp string, r Request) {
	s := a.scheme()
	h := r.Header
	if r.URL == "" {
		r.URL = a.URL
	}
	v := signedValues{timestamp: stamp, id: id, url: s.addresses(r)[0], request: &r, form: func() string { return formText(r) }}
	if s.timestamp.place == placeHeader {
		h.Set(s.timestamp.name, stamp)
	}
	a.setID(s, id, h)
	prefix := s.prefix
	if prefix == "" && a.Kind == KindHMAC && s.algorithm != AlgorithmEd25519 {
		prefix = s.algorithm + "="
	}
	text := prefix + encodeSignature(s.mac(secret, v), s.encoding)
	if s.timestamp.place == placeSignature {
		text = s.timestamp.name + "=" + stamp + "," + text
	}
	h.Set(s.headers[0], text)
}

// setID sets the delivery id where the sender puts it, if that is a header.
func (a Auth) setID(s scheme, id string, h http.Header) {
	if len(s.ids) == 0 {
		h.Set("Idempotency-Key", id)
	} else if at := s.ids[0]; at.place == placeHeader {
		h.Set(at.name, id)
	}
}
