package agented

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Price is what a model's tokens cost, in USD per million tokens of each kind.
type Price struct {
	Model      string   `json:"model"` // name, or a prefix that ends with *
	Input      float64  `json:"input"`
	Output     float64  `json:"output"`
	CacheRead  *float64 `json:"cache_read"`  // nil: same as Input
	CacheWrite *float64 `json:"cache_write"` // nil: same as Input
	Source     string   `json:"source,omitempty"`
}

// Prices is a price list with its date. It is used for CLIs that report only
// tokens.
type Prices struct {
	Date   string  `json:"date"` // 2006-01-02
	Source string  `json:"source"`
	Models []Price `json:"models"`
}

// ParsePrices parses a price list from JSON.
func ParsePrices(text []byte) (*Prices, error) {
	var p Prices
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, Errorf(Invalid, "the price list is not JSON of the expected form").Because(err)
	}
	for _, m := range p.Models {
		bad := func(v float64) bool { return math.IsNaN(v) || v < 0 || v > 1e6 }
		name := strings.TrimSuffix(m.Model, "*")
		if name == "" || strings.Contains(name, "*") || hasControl(name) {
			return nil, Errorf(Invalid, "the price list has an invalid model %q: use its name, or a prefix that ends with *", clip(m.Model))
		}
		if bad(m.Input) || bad(m.Output) || m.CacheRead != nil && bad(*m.CacheRead) || m.CacheWrite != nil && bad(*m.CacheWrite) {
			return nil, Errorf(Invalid, "the price list has an invalid price for %s: use USD per million tokens", clip(m.Model))
		}
	}
	return &p, nil
}

// Of returns the price of a model: the entry with its name, otherwise the
// longest matching prefix. If the list has no match, a provider before a slash
// in the name is ignored.
func (p *Prices) Of(model string) (Price, bool) {
	if p == nil {
		return Price{}, false
	}
	for {
		var best Price
		found := false
		for _, m := range p.Models {
			if strings.EqualFold(m.Model, model) {
				return m, true
			}
			start, open := strings.CutSuffix(m.Model, "*")
			if open && len(model) >= len(start) && strings.EqualFold(model[:len(start)], start) && (!found || len(m.Model) > len(best.Model)) {
				best, found = m, true
			}
		}
		_, rest, more := strings.Cut(model, "/")
		if found || !more {
			return best, found
		}
		model = rest
	}
}

// Cost calculates the cost of the tokens. It is unknown if the model has no
// price, or if the input or output count is unknown; unknown cache counts are
// taken as zero.
func (p *Prices) Cost(model string, u Usage) (usd float64, ok bool) {
	price, ok := p.Of(model)
	if !ok || u.InputTokens == nil || u.OutputTokens == nil {
		return 0, false
	}
	usd = float64(*u.InputTokens)*price.Input + float64(*u.OutputTokens)*price.Output
	for _, c := range []struct {
		tokens *int64
		price  *float64
	}{{u.CacheReadTokens, price.CacheRead}, {u.CacheWriteTokens, price.CacheWrite}} {
		each := price.Input
		if c.price != nil {
			each = *c.price
		}
		if c.tokens != nil {
			usd += float64(*c.tokens) * each
		}
	}
	return usd / 1e6, true
}

// Merge returns the list followed by the models of base. An entry of p takes
// precedence over one of base.
func (p *Prices) Merge(base *Prices) *Prices {
	if base == nil {
		return p
	}
	out := *p
	out.Models = slices.Clone(p.Models)
	for _, m := range base.Models {
		if !slices.ContainsFunc(p.Models, func(own Price) bool { return strings.EqualFold(own.Model, m.Model) }) {
			out.Models = append(out.Models, m)
		}
	}
	if out.Source == "" {
		out.Source = base.Source
	}
	if base.Source != "" && out.Source != base.Source {
		out.Source = fmt.Sprintf("%s; else %s (%s)", out.Source, base.Source, base.Date)
	}
	return &out
}
