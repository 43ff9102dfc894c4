package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strconv"
	"time"
)

// Sign sets the headers that prove a call genuine, as its sender would: what
// [Auth.Verify] with the same secret accepts. The id becomes the delivery's.
func (a Auth) Sign(secret, id string, h http.Header, body []byte, now time.Time) {
	switch a.Kind {
	case KindGitHub:
		h.Set("X-GitHub-Delivery", id)
		h.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(sum([]byte(secret), body)))
		return
	case KindStandard:
		stamp := strconv.FormatInt(now.Unix(), 10)
		key, _ := standardKey(secret)
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + stamp + "."))
		mac.Write(body)
		h.Set("Webhook-Id", id)
		h.Set("Webhook-Timestamp", stamp)
		h.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
		return
	case KindHMAC:
		header, proof := a.Header, sum([]byte(secret), body)
		if header == "" {
			header = DefaultHMACHeader
		}
		text := hex.EncodeToString(proof)
		if a.Encoding == EncodingBase64 {
			text = base64.StdEncoding.EncodeToString(proof)
		}
		prefix := a.Prefix
		if prefix == "" {
			prefix = "sha256="
		}
		h.Set(header, prefix+text)
	case KindBearer:
		if a.Header == "" {
			h.Set("Authorization", "Bearer "+secret)
		} else {
			h.Set(a.Header, a.Prefix+secret)
		}
	}
	h.Set("Idempotency-Key", id)
}
