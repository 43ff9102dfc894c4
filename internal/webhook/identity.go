package webhook

import (
	"net/http"
	"strings"

	"github.com/agented/agented"
)

// MaxID is the longest id of a delivery, in bytes.
const MaxID = 200

// idHeaders carry the id that a sender gives to a delivery, in the order in
// which they are believed, each with the word that keeps them apart in a key.
var idHeaders = []struct{ header, source string }{
	{"X-Github-Delivery", "github"},
	{"Webhook-Id", "standard"},
	{"Idempotency-Key", "key"},
}

// DeliveryID returns the sender's id of the delivery, or "" when it has none.
// An id that is no printable ASCII text without spaces, is longer than [MaxID],
// or comes twice, is an Invalid error.
func DeliveryID(h http.Header) (string, error) {
	_, id, err := deliveryID(h)
	return id, err
}

func deliveryID(h http.Header) (source, id string, err error) {
	for _, known := range idHeaders {
		values := h.Values(known.header)
		if len(values) == 0 || len(values) == 1 && values[0] == "" {
			continue
		}
		if len(values) > 1 {
			return "", "", agented.Errorf(agented.Invalid, "the header %s comes more than once: send it once", known.header)
		}
		if !validID(values[0]) {
			return "", "", agented.Errorf(agented.Invalid, "the header %s is not an id: use printable ASCII without spaces, at most %d bytes", known.header, MaxID)
		}
		return known.source, values[0], nil
	}
	return "", "", nil
}

// DeliveryKey returns the sender's id of the delivery with the kind of header
// that it came in, for example "github:72d3162e-…", or "" when it has none. Two
// calls to one endpoint with the same key are the same delivery. The body takes
// no part: two deliveries with equal bodies are two, and a call without a key is
// like no other.
func DeliveryKey(h http.Header) (string, error) {
	source, id, err := deliveryID(h)
	if err != nil || id == "" {
		return "", err
	}
	return source + ":" + id, nil
}

// DedupKey is [DeliveryKey] with the endpoint before it, which makes it one for
// the whole server. The endpoint is the caller's own name for it, the same for
// all addresses at which it answers, and has no space.
func DedupKey(endpoint string, h http.Header) (string, error) {
	key, err := DeliveryKey(h)
	if err != nil || key == "" {
		return "", err
	}
	return endpoint + " " + key, nil
}

func validID(s string) bool {
	if s == "" || len(s) > MaxID {
		return false
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// keptHeaders are those that the ledger may keep: none of them can hold a
// secret, and none lets a reader of the ledger send the call again.
var keptHeaders = []string{
	"Content-Type", "Content-Length", "User-Agent", "Webhook-Id", "Webhook-Timestamp", "Idempotency-Key",
	"X-Github-Delivery", "X-Github-Event", "X-Github-Hook-Id", "X-Github-Hook-Installation-Target-Id",
	"X-Github-Hook-Installation-Target-Type", "X-Github-Enterprise-Host", "X-Github-Enterprise-Version",
	"X-Gitea-Event", "X-Gitlab-Event", "X-Event-Key",
}

// LedgerHeaders returns the headers of a call that may be kept: a fixed list of
// harmless ones, cleaned, each at most 300 bytes, values joined by ", ".
// Signatures, tokens, cookies and whatever is not known are left out.
func LedgerHeaders(h http.Header) map[string]string {
	out := map[string]string{}
	for _, name := range keptHeaders {
		if values := h.Values(name); len(values) > 0 {
			out[name] = brief(strings.Join(values, ", "), 300)
		}
	}
	return out
}
