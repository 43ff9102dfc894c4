package notify

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented"
)

// secretPrefix begins the secret of a webhook as Standard Webhooks writes it: base64 follows.
const secretPrefix = "whsec_"

// NewSecret returns a random secret for the signature of a webhook.
func NewSecret() string {
	var b [24]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return secretPrefix + base64.StdEncoding.EncodeToString(b[:])
}

// SecretFault returns why a text cannot be the secret of a webhook, or "".
func SecretFault(text string) string {
	key, err := signingKey(text)
	if err != nil || len(key) < 24 || len(key) > 64 {
		return "must be whsec_ and the base64 of 24 to 64 bytes, as Standard Webhooks defines it; omit it to let the server create one"
	}
	return ""
}

func signingKey(secret string) ([]byte, error) {
	text, ok := strings.CutPrefix(secret, secretPrefix)
	if !ok {
		return nil, errors.New("the secret does not begin with whsec_")
	}
	return base64.StdEncoding.DecodeString(text)
}

// sign sets the headers of Standard Webhooks: the signature covers id, time and body.
func sign(h http.Header, secret, id string, at time.Time, body []byte) error {
	key, err := signingKey(secret)
	if err != nil {
		return errors.New("the secret of the webhook is not whsec_ and base64: replace it")
	}
	stamp := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", id, stamp, body)
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", stamp)
	h.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return nil
}

// payload is the body of a webhook. Names are stable; fields may be added.
type payload struct {
	Type      agented.NotificationKind `json:"type"`
	Timestamp time.Time                `json:"timestamp"`
	Data      payloadData              `json:"data"`
}

type payloadData struct {
	ID        string              `json:"id"`
	Title     string              `json:"title"`
	Text      string              `json:"text"`
	Trigger   *payloadTrigger     `json:"trigger"`
	Execution agented.ExecutionID `json:"execution_id,omitempty"`
	Subject   string              `json:"subject,omitempty"`
	More      int                 `json:"more"`
	Link      string              `json:"url,omitempty"`
}

type payloadTrigger struct {
	ID   agented.TriggerID `json:"id"`
	Name string            `json:"name"`
}

func webhookBody(m Message) payload {
	p := payload{Type: m.Kind, Timestamp: m.At, Data: payloadData{
		ID: m.ID, Title: m.Title, Text: m.Text, Execution: m.Exec, Subject: m.Subject, More: m.More, Link: m.Link,
	}}
	if m.Name != "" || m.Trigger != "" {
		p.Data.Trigger = &payloadTrigger{m.Trigger, m.Name}
	}
	return p
}
