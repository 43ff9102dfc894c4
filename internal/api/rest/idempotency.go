package rest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/agented/agented"
)

// KeyDigest returns a digest of the request body that an Idempotency-Key is
// used with. It ignores the order of keys, white space, and values of env,
// which can be secrets. An empty body is the same as {}.
func KeyDigest(v any) string {
	raw, err := json.Marshal(v)
	var body map[string]any
	if err != nil || json.Unmarshal(raw, &body) != nil {
		return ""
	}
	if body == nil {
		body = map[string]any{}
	}
	if env, ok := body["env"].(map[string]any); ok {
		for name := range env {
			env[name] = nil
		}
	}
	canonical, err := json.Marshal(body)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(canonical)
	return hex.EncodeToString(sum[:])
}

// CheckKey validates an Idempotency-Key.
func CheckKey(key string) error {
	bad := len(key) > 255
	for i := range len(key) {
		bad = bad || key[i] < 0x20 || key[i] > 0x7e
	}
	if bad {
		return agented.InvalidFields([]agented.Field{{
			Path: "header.Idempotency-Key", Text: "must be at most 255 printable ASCII characters",
		}})
	}
	return nil
}
