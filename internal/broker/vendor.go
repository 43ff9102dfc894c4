package broker

import (
	"net/http"
	"strings"
)

// The vendors: the APIs that the broker forwards to.
const (
	Anthropic = "anthropic"
	OpenAI    = "openai"
	Gemini    = "gemini"
)

// keyHeaders returns the headers in which the clients of a vendor send a key.
func keyHeaders(vendor string) []string {
	switch vendor {
	case Anthropic:
		return []string{"X-Api-Key", "Authorization"}
	case OpenAI:
		return []string{"Authorization"}
	case Gemini:
		return []string{"X-Goog-Api-Key", "Authorization"}
	}
	return nil
}

// allows reports whether a request calls a model or lists models. Other methods of the same paths
// change what the account has stored. The path is relative to the base address: for OpenAI it is
// without /v1.
func allows(vendor, method, path string) bool {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for _, p := range parts {
		if p == "" || p == "." || p == ".." || strings.ContainsAny(p, "\\%") {
			return false
		}
	}
	switch vendor {
	case Anthropic:
		return parts[0] == "v1" && allowsAnthropic(method, parts[1:])
	case OpenAI:
		return allowsOpenAI(method, parts)
	case Gemini:
		return strings.HasPrefix(parts[0], "v1") && allowsGemini(method, parts[1:])
	}
	return false
}

func allowsAnthropic(method string, parts []string) bool {
	switch strings.Join(parts, "/") {
	case "messages", "messages/count_tokens":
		return method == http.MethodPost
	}
	return method == http.MethodGet && len(parts) > 0 && len(parts) <= 2 && parts[0] == "models"
}

func allowsOpenAI(method string, parts []string) bool {
	switch strings.Join(parts, "/") {
	case "chat/completions", "completions", "embeddings":
		return method == http.MethodPost
	}
	return method == http.MethodPost && parts[0] == "responses" || method == http.MethodGet && parts[0] == "models"
}

func allowsGemini(method string, parts []string) bool {
	if len(parts) == 0 || parts[0] != "models" && parts[0] != "tunedModels" || len(parts) > 2 {
		return false
	}
	call, called := "", false
	if len(parts) == 2 {
		_, call, called = strings.Cut(parts[1], ":")
	}
	switch call {
	case "generateContent", "streamGenerateContent", "countTokens", "embedContent", "batchEmbedContents":
		return method == http.MethodPost
	}
	return method == http.MethodGet && !called
}
