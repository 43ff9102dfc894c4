package agented

import (
	"crypto/rand"
	"strings"
	"time"
)

// Each kind of id has its own type, so that one cannot be passed for another.
// An id is a prefix, a hyphen and 26 characters that sort by time.
type (
	// TriggerID names a trigger: "trg-…".
	TriggerID string
	// ExecutionID names an execution: "exec-…". It is also a directory name.
	ExecutionID string
	// NodeID names one running server: "node-…".
	NodeID string
	// UserID names a person who can log in: "usr-…".
	UserID string
	// KeyID identifies an API key (it is not the key itself): "key-…".
	KeyID string
	// SessionID identifies a login for display: "ses-…". It is not the value of
	// the cookie, which is stored only as a hash.
	SessionID string
	// DeliveryID names one inbound webhook call: "dlv-…".
	DeliveryID string
	// AccountID names one set of credentials of a backend: "acc-…".
	AccountID string
	// ScheduleID names one schedule of a trigger: "sch-…".
	ScheduleID string
	// AgentID names an agent: "agt-…".
	AgentID string
	// ConversationID names a conversation: "conv-…". It is also a directory
	// name.
	ConversationID string
	// MessageID names a message: "msg-…".
	MessageID string
)

// idAlphabet is Crockford's base 32 in lower case: no i, l, o or u, and in
// ASCII order, so that ids sort by time.
const idAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"

// NewID returns prefix, a hyphen, ten characters that encode now in
// milliseconds and sixteen random ones. Ids sort by creation time, to the
// millisecond.
func NewID(prefix string, now time.Time) string {
	var b strings.Builder
	b.Grow(len(prefix) + 27)
	b.WriteString(prefix)
	b.WriteByte('-')
	ms := uint64(now.UnixMilli())
	for shift := 45; shift >= 0; shift -= 5 {
		b.WriteByte(idAlphabet[ms>>uint(shift)&31])
	}
	var r [16]byte
	rand.Read(r[:]) // never fails: crypto/rand ends the process instead
	for _, c := range r {
		b.WriteByte(idAlphabet[c&31])
	}
	return b.String()
}

// ValidID reports whether id is prefix, a hyphen and 26 characters of the id
// alphabet. Check an id with it before using the id in a path.
func ValidID(prefix, id string) bool {
	rest, ok := strings.CutPrefix(id, prefix+"-")
	if !ok || len(rest) != 26 {
		return false
	}
	for i := range len(rest) {
		if strings.IndexByte(idAlphabet, rest[i]) < 0 {
			return false
		}
	}
	return true
}
