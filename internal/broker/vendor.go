package broker

import "strings"

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

// allows reports whether a vendor's path calls or lists models. The path is relative to the base
// address: for OpenAI it is without /v1.
func allows(vendor, path string) bool {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for _, p := range parts {
		if p == "" || p == "." || p == ".." || strings.ContainsAny(p, "\\%") {
			return false
		}
	}
	switch vendor {
	case Anthropic:
		return parts[0] == "v1" && allowsAnthropic(parts[1:])
	case OpenAI:
		return allowsOpenAI(parts)
	case Gemini:
		return strings.HasPrefix(parts[0], "v1") && allowsGemini(parts[1:])
	}
	return false
}

func allowsAnthropic(parts []string) bool {
	switch path := strings.Join(parts, "/"); path {
	case "messages", "messages/count_tokens", "models":
		return true
	default:
		return len(parts) == 2 && parts[0] == "models"
	}
}

func allowsOpenAI(parts []string) bool {
	switch strings.Join(parts, "/") {
	case "chat/completions", "completions", "embeddings":
		return true
	}
	return parts[0] == "responses" || parts[0] == "models"
}

func allowsGemini(parts []string) bool {
	if len(parts) == 0 || parts[0] != "models" && parts[0] != "tunedModels" || len(parts) > 2 {
		return false
	}
	if len(parts) == 1 {
		return true
	}
	_, method, called := strings.Cut(parts[1], ":")
	switch method {
	case "generateContent", "streamGenerateContent", "countTokens", "embedContent", "batchEmbedContents":
		return true
	}
	return !called
}
