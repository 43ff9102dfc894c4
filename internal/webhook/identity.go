package webhook

import (
	"net/http"
	"strings"
)

// MaxID is the length of the longest delivery id, in bytes.
const MaxID = 200

// DeliveryID returns the delivery id in a call of an unknown sender, or "" if
// there is none. An id that contains spaces or other characters than printable
// ASCII, is longer than [MaxID], or occurs twice, is an Invalid error.
func DeliveryID(h http.Header) (string, error) {
	_, id, err := deliveryID(h)
	return id, err
}

func deliveryID(h http.Header) (word, id string, err error) {
	for _, c := range commonIDs {
		values := h.Values(c.name)
		if len(values) == 0 || len(values) == 1 && values[0] == "" {
			continue
		}
		if id, err = c.text(h, nil); err != nil {
			return "", "", err
		}
		if !validID(id) {
			return "", "", invalidID(c.name)
		}
		return c.word, id, nil
	}
	return "", "", nil
}

// DeliveryKey is [Auth.DeliveryKey] for an unknown sender, whose signature does
// not cover an id.
func DeliveryKey(h http.Header) (string, error) {
	word, id, err := deliveryID(h)
	if err != nil || id == "" {
		return "", err
	}
	return word + ":" + id, nil
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

// keptHeaders are the headers that may be stored: none of them can contain a
// secret or allow a reader to repeat the call.
var keptHeaders = []string{
	"Content-Type", "Content-Length", "User-Agent", "Webhook-Id", "Webhook-Timestamp", "Idempotency-Key",
	"X-Github-Delivery", "X-Github-Event", "X-Github-Hook-Id", "X-Github-Hook-Installation-Target-Id",
	"X-Github-Hook-Installation-Target-Type", "X-Github-Enterprise-Host", "X-Github-Enterprise-Version",
	"X-Gitea-Event", "X-Gitea-Event-Type", "X-Gitea-Delivery", "X-Forgejo-Event", "X-Forgejo-Event-Type", "X-Forgejo-Delivery", "X-Gogs-Event", "X-Gogs-Delivery",
	"X-Gitlab-Event", "X-Gitlab-Instance", "X-Event-Key", "X-Request-Uuid", "X-Attempt-Number", "X-Hook-Uuid",
	"X-Slack-Request-Timestamp", "X-Slack-Retry-Num", "X-Slack-Retry-Reason", "Svix-Id", "Svix-Timestamp", "Linear-Delivery", "Linear-Event",
	"X-Atlassian-Webhook-Identifier", "X-Atlassian-Webhook-Retry", "Request-Id", "Sentry-Hook-Resource", "Sentry-Hook-Timestamp",
	"X-Shopify-Webhook-Id", "X-Shopify-Topic", "X-Shopify-Shop-Domain", "X-Webhook-Id", "X-Signature-Timestamp", "I-Twilio-Idempotency-Token",
}

// LedgerHeaders returns the headers of a call that may be stored: a fixed list
// of harmless ones, cleaned, each at most 300 bytes, values joined by ", ".
// Signatures, tokens, cookies and unknown headers are omitted.
func LedgerHeaders(h http.Header) map[string]string {
	out := map[string]string{}
	for _, name := range keptHeaders {
		if values := h.Values(name); len(values) > 0 {
			out[name] = brief(strings.Join(values, ", "), 300)
		}
	}
	return out
}
