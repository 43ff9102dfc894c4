// Package naming validates and compares the names of triggers, agents,
// accounts, budgets, users and API keys.
package naming

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/agented/agented"
)

// Key returns the normalised form of a name: lower case, composed (NFC). Two
// spellings with the same key are the same name.
func Key(name string) string {
	if ascii(name) {
		return strings.ToLower(name)
	}
	// Lower-casing can separate a letter from its mark, so compose it again.
	return norm.NFC.String(strings.ToLower(norm.NFC.String(name)))
}

// Same reports whether a and b are the same name.
func Same(a, b string) bool { return Key(a) == Key(b) }

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// Check returns what is wrong with the characters or the form of a new name, or
// "". Length, white space at the ends and the alphabet of handles are checked
// elsewhere. Stored names are not checked again.
func Check(name string) string {
	if !utf8.ValidString(name) {
		return "is not valid UTF-8: use printable characters"
	}
	visible := false
	for _, r := range name {
		switch {
		case unicode.IsControl(r), r == '\u2028', r == '\u2029':
			return fmt.Sprintf("has a control character (U+%04X): use printable characters", r)
		case r >= 0x202A && r <= 0x202E, r >= 0x2066 && r <= 0x2069:
			return fmt.Sprintf("has a character that changes the direction of text (U+%04X): remove it", r)
		case r == '\u200B', r == '\u2060', r == '\uFEFF':
			return fmt.Sprintf("has an invisible character (U+%04X): remove it", r)
		}
		visible = visible || canBeSeen(r)
	}
	if !visible {
		return "has no visible character: use letters or digits"
	}
	if prefix := idPrefix(name); prefix != "" {
		return fmt.Sprintf("has the form of an id (%s-…): choose a name that does not begin with %s-", prefix, prefix)
	}
	return ""
}

// canBeSeen reports whether r alone is visible. A joiner, a variation selector
// or a filler is allowed in a name, but not as the only character.
func canBeSeen(r rune) bool {
	const blankBraille = '\u2800'
	return r != blankBraille && !unicode.In(r, unicode.Z, unicode.Cf, unicode.Cs, unicode.M, unicode.Other_Default_Ignorable_Code_Point)
}

// Prefixes of ids. Those in the first list are not words, so no other name
// begins with them. Those in the second list are words, as in key-rotation:
// only a complete id is rejected.
var (
	idOnly  = []string{"trg", "exec", "agt", "acc", "usr", "dlv", "sch", "conv", "ses", "bud", "whk", "aud"}
	idWords = []string{"key", "node", "msg", "cli", "req", "test"}
)

// idPrefix returns the prefix of the kind of id that name resembles, or "". It
// ignores case and compatibility forms, such as full-width letters.
func idPrefix(name string) string {
	folded := strings.ToLower(norm.NFKC.String(name))
	for _, p := range idOnly {
		if rest, ok := strings.CutPrefix(folded, p+"-"); ok && rest != "" {
			return p
		}
	}
	for _, p := range idWords {
		if agented.ValidID(p, folded) {
			return p
		}
	}
	return ""
}
