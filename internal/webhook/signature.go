package webhook

import (
	"encoding/base64"
	"encoding/hex"
	"strings"
)

// isSeparator reports whether a byte separates the elements of a signature
// header.
func isSeparator(c byte) bool { return c == ' ' || c == ',' || c == ';' || c == '\t' }

// signatureTexts returns the signatures in a header's value, at most
// [maxSignatures]: each text after the prefix, if the prefix starts an element.
// Elements are separated by commas, semicolons and white space. With an empty
// prefix every element is a signature, with or without the optional prefix.
func signatureTexts(value, prefix, optional string) []string {
	var out []string
	prefix = strings.TrimSpace(prefix)
	for i := 0; i < len(value) && len(out) < maxSignatures; {
		for i < len(value) && isSeparator(value[i]) {
			i++
		}
		if i == len(value) {
			break
		}
		rest := value[i:]
		found := true
		if prefix != "" {
			rest, found = strings.CutPrefix(rest, prefix)
		} else {
			rest = strings.TrimPrefix(rest, optional)
		}
		if found {
			rest = strings.TrimLeft(rest, " \t")
		}
		end := 0
		for end < len(rest) && !isSeparator(rest[end]) {
			end++
		}
		if found {
			out = append(out, rest[:end])
		}
		i = len(value) - len(rest) + end
	}
	return out
}

// signatureElement returns the value of the element name=value of a signature
// header, and false if there is none, or more than one.
func signatureElement(value, name string) (string, bool) {
	found := signatureTexts(value, name+"=", "")
	if len(found) != 1 {
		return "", false
	}
	return found[0], true
}

// decodeSignature decodes a signature in hex or base64.
func decodeSignature(text, encoding string) ([]byte, bool) {
	if encoding == EncodingBase64 {
		return decodeBase64(text)
	}
	out, err := hex.DecodeString(text)
	return out, err == nil
}

// encodeSignature encodes a signature in hex or base64.
func encodeSignature(b []byte, encoding string) string {
	if encoding == EncodingBase64 {
		return base64.StdEncoding.EncodeToString(b)
	}
	return hex.EncodeToString(b)
}
