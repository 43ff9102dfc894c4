package agented

import (
	"math"
	"strconv"
	"strings"
)

// Estimate returns the cost of the tokens, using the price of the nearest model
// of the same family if the list does not have the model. like is then the
// entry whose price was used, and empty otherwise.
func (p *Prices) Estimate(model string, u Usage) (usd float64, like string, ok bool) {
	if usd, ok = p.Cost(model, u); ok {
		return usd, "", true
	}
	if _, priced := p.Of(model); priced {
		return 0, "", false // the token counts are unknown
	}
	near, ok := p.Nearest(model)
	if !ok {
		return 0, "", false
	}
	usd, ok = p.Cost(near.Model, u)
	if !ok {
		// An entry that ends with a star has no version of its own.
		usd, ok = (&Prices{Models: []Price{{Model: model, Input: near.Input, Output: near.Output, CacheRead: near.CacheRead, CacheWrite: near.CacheWrite}}}).Cost(model, u)
	}
	return usd, near.Model, ok
}

// Nearest returns the entry of the same family with the nearest version; of two
// equally near ones, the more expensive. For a model without a version, such as
// "opus", it is the newest entry. A Claude model of an unknown family gets the
// price of the most expensive one.
func (p *Prices) Nearest(model string) (Price, bool) {
	if p == nil {
		return Price{}, false
	}
	family, version := familyOf(model)
	if family == "" {
		return Price{}, false
	}
	var best Price
	found, distance := false, 0.0
	for _, m := range p.Models {
		f, v := familyOf(strings.TrimSuffix(m.Model, "*"))
		if f != family && (family != "claude" || !strings.HasPrefix(f, "claude ")) {
			continue
		}
		d := math.Abs(v - version)
		switch {
		case family == "claude":
			d = 0
		case version == 0:
			d = -v
		}
		if !found || d < distance || d == distance && m.Input+m.Output > best.Input+best.Output {
			best, found, distance = m, true, d
		}
	}
	return best, found
}

// familyOf splits a model's name into its family, such as "claude opus" or "gpt
// mini", and its version: 5.4 is 504. The family is empty if it is unknown.
func familyOf(model string) (family string, version float64) {
	words := strings.FieldsFunc(strings.ToLower(model), func(c rune) bool { return strings.ContainsRune("-_./:@ [](),", c) })
	vendor, tier := "", ""
	var numbers []float64
	for i, w := range words {
		n, err := strconv.Atoi(strings.TrimPrefix(w, "v"))
		switch {
		case err == nil && len(w) <= 2 && len(numbers) < 2 && (i == 0 || len(numbers) == 0 || digits(words[i-1])):
			numbers = append(numbers, float64(n))
		case w == "claude" || w == "gpt" || w == "gemini":
			vendor = w
		case w == "opus" || w == "sonnet" || w == "haiku":
			tier = w
			if vendor == "" {
				vendor = "claude"
			}
		case w == "mini" || w == "nano" || w == "pro" || w == "flash":
			tier = w
		case w == "lite":
			tier += " lite"
		}
	}
	if vendor == "" || vendor == "gemini" && tier == "" {
		return "", 0
	}
	if vendor == "claude" && tier != "opus" && tier != "sonnet" && tier != "haiku" {
		tier = ""
	}
	for i, n := range numbers {
		if i == 0 {
			version = n * 100
		} else {
			version += n
		}
	}
	return strings.TrimSpace(vendor + " " + tier), version
}

func digits(s string) bool {
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}
