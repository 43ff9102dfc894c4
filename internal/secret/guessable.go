package secret

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/agented/agented"
)

// checkGuessable rejects passwords that attackers try first: repetitions,
// sequences, common passwords with decoration, and the user's own name.
func checkGuessable(password string, names []string) error {
	lower := strings.ToLower(password)
	for _, name := range names {
		name = strings.ToLower(strings.TrimSpace(name))
		if utf8.RuneCountInString(name) >= 3 && strings.Contains(lower, name) {
			return agented.Errorf(agented.Invalid, "the password contains the user's name: choose one that does not")
		}
	}
	runes := []rune(lower)
	if repeats(runes) {
		return agented.Errorf(agented.Invalid, "the password repeats a few characters: choose one with more variety")
	}
	if inSequence(runes) {
		return agented.Errorf(agented.Invalid, "the password is a sequence of the alphabet, of digits or of the keyboard: choose another one")
	}
	core := strings.TrimFunc(lower, func(r rune) bool { return !unicode.IsLetter(r) })
	if common[letters(core)] || common[letters(unleet.Replace(core))] || common[letters(unleet.Replace(lower))] {
		return agented.Errorf(agented.Invalid, "the password is a common one with digits or signs around it: choose several unrelated words instead")
	}
	return nil
}

// repeats reports whether a text has fewer than four different characters, or
// repeats a short unit.
func repeats(text []rune) bool {
	seen := map[rune]bool{}
	for _, r := range text {
		seen[r] = true
	}
	if len(seen) < 4 {
		return true
	}
	for unit := 1; unit <= min(6, len(text)/2); unit++ {
		same := true
		for i := unit; i < len(text) && same; i++ {
			same = text[i] == text[i-unit]
		}
		if same {
			return true
		}
	}
	return false
}

// rows are sequences of keys and characters, in both directions.
var rows = []string{"abcdefghijklmnopqrstuvwxyz", "01234567890", "qwertyuiop[]", "asdfghjkl;'", "zxcvbnm,./", "qwertzuiop", "azertyuiop", "qazwsxedcrfvtgbyhnujmikolp", "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p", "1q2w3e4r5t6y7u8i9o0p"}

// inSequence reports whether all but a few pairs of adjacent characters follow
// a row.
func inSequence(text []rune) bool {
	steps := 0
	for i := 1; i < len(text); i++ {
		if pair := string(text[i-1 : i+1]); follows(pair) {
			steps++
		}
	}
	return steps*4 >= (len(text)-1)*3
}

func follows(pair string) bool {
	back := []rune(pair)
	back[0], back[1] = back[1], back[0]
	for _, row := range rows {
		if strings.Contains(row, pair) || strings.Contains(row, string(back)) {
			return true
		}
	}
	return false
}

// unleet reverses common substitutions of letters.
var unleet = strings.NewReplacer("0", "o", "1", "l", "3", "e", "4", "a", "5", "s", "7", "t", "@", "a", "$", "s", "!", "i")

// letters returns the letters of a text.
func letters(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) {
			return r
		}
		return -1
	}, text)
}

// common contains the words that common passwords are made of.
var common = func() map[string]bool {
	all := map[string]bool{}
	for word := range strings.FieldsSeq(`password passwort passwd passw passwords passphrase mypassword thepassword newpassword
		secret mysecret topsecret admin administrator adminadmin adminpassword passwordadmin root rootroot toor superuser superadmin
		letmein letmeinnow welcome welcomeback welcomehome changeme changemenow changeit pleasechange default temporary temp test testtest
		testing tester testpassword testuser guest user username login iloveyou ilovey loveyou sunshine princess football baseball
		basketball superman batman dragon monkey master shadow michael jennifer jordan hunter hunterhunter trustno trustnoone
		starwars whatever freedom computer internet samsung google facebook pokemon minecraft qwerty qwertyqwerty qwert qwertyui
		azerty asdf asdfasdf abc abcd abcabc summer winter spring autumn january october december monday
		company server agented agentedagented agent demo example hello helloworld hellohello nothing killer charlie access
		passwordpassword correcthorsebatterystaple`) {
		all[word] = true
	}
	return all
}()
