package agentcli

import (
	"cmp"
	_ "embed"
	"os"
	"sync"

	"github.com/agented/agented"
)

//go:embed prices.json
var pricesJSON []byte

// DefaultPrices returns the built-in price list.
var DefaultPrices = sync.OnceValue(func() *agented.Prices {
	p, err := agented.ParsePrices(pricesJSON)
	if err != nil {
		panic(err) // covered by a test
	}
	return p
})

// ReadPrices returns the price list of a server: the prices of the file that AGENTED_PRICES names
// before the built-in ones. An empty name means no file.
func ReadPrices(file string) (*agented.Prices, error) {
	if file == "" {
		return DefaultPrices(), nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, agented.Errorf(agented.Invalid, "AGENTED_PRICES: %s cannot be read: check the path", file).Because(err)
	}
	p, err := agented.ParsePrices(text)
	if err != nil {
		return nil, agented.Errorf(agented.Invalid, "AGENTED_PRICES: %s", agented.Message(err)).Because(err)
	}
	return p.Merge(DefaultPrices()), nil
}

// Meter sums up the usage of an attempt while it runs, from the events of its CLI. Its memory is
// bounded. Usage that a CLI prints only at its end is unknown until
// then.
type Meter struct {
	asked  string
	prices *agented.Prices

	model   string
	session string
	sum     agented.Usage // of completed messages
	cost    Number        // of completed messages
	blind   bool          // some of the cost is unknown
	priced  bool          // some of the cost comes from the price list
	like    string        // list entry used for a model without a price
	strange string        // model for which the list has no entry at all
	now     agented.Usage // of the current message, which later lines correct
	nowID   string
	last    *agented.Usage // final usage that the CLI reports
	total   results        // of the results
}

// NewMeter returns a meter. model is the requested model, for CLIs that do not report it.
func NewMeter(model string, prices *agented.Prices) *Meter {
	return &Meter{asked: model, prices: prices}
}

// Add processes the events of one line.
func (m *Meter) Add(events []Event) {
	for i := range events {
		m.add(&events[i])
	}
}

func (m *Meter) add(e *Event) {
	if e.Session != "" {
		m.session = Clip(e.Session, MaxID)
	}
	switch {
	case e.Has(Untyped):
	case e.Kind == KindStarted && e.Model != "":
		m.model = Clip(e.Model, MaxID)
	case e.Kind == KindUsage && e.Has(Final):
		m.step(e)
	case e.Kind == KindUsage && e.Usage != nil:
		id := Clip(e.ID, MaxID)
		if id != m.nowID || id == "" {
			m.message(id, agented.Usage{}) // completes the previous message at its own model's price
			if e.Model != "" {
				m.model = Clip(e.Model, MaxID)
			}
		}
		m.message(m.nowID, *e.Usage)
	case e.Kind == KindResult:
		m.total.add(e)
		if u := m.total.usage; e.Usage != nil && u.Known() {
			// It includes everything before it; later usage is added.
			m.last = &u
			m.sum, m.now, m.nowID, m.cost, m.blind, m.priced = agented.Usage{}, agented.Usage{}, "", Number{}, false, false
		}
	}
}

// step adds the usage of one step.
func (m *Meter) step(e *Event) {
	if e.Usage != nil {
		addUsage(&m.sum, *e.Usage)
		if e.Cost.V <= 0 {
			// The CLI prints 0 for a model without a known price.
			m.price(*e.Usage)
			return
		}
	}
	m.cost.Plus(e.Cost)
}

// Model returns the model in use, or "" if it is unknown.
func (m *Meter) Model() string {
	if m.model != "" {
		return m.model
	}
	return m.asked
}

// Session returns the CLI's session id, or "" until the CLI has reported it.
func (m *Meter) Session() string { return m.session }

// Usage returns the usage so far. A cost from the price list is marked as estimated; an unknown
// cost is nil.
func (m *Meter) Usage() agented.Usage {
	if m.last != nil && !m.sum.Known() && !m.now.Known() {
		u := *m.last
		if u.CostUSD == nil && !u.CumulativeSession {
			if usd, ok := m.estimate(u); ok {
				u.CostUSD, u.Estimated = &usd, true
			}
		}
		return u
	}
	u, cost, blind := m.sum, m.cost, m.blind
	addUsage(&u, m.now)
	if m.now.Known() {
		usd, ok := m.estimate(m.now)
		cost.Plus(Number{usd, ok})
		blind = blind || !ok
	}
	estimated := m.priced || m.now.Known()
	if m.last != nil {
		addUsage(&u, *m.last)
		if usd := m.last.CostUSD; usd != nil {
			cost.Plus(Number{*usd, true})
		} else {
			blind = true
		}
	}
	if u.CostUSD = nil; cost.Known && !blind {
		u.CostUSD, u.Estimated = cost.Money(), estimated
	}
	return u
}

// message records the usage of one message. Lines with the same id repeat and correct each other.
func (m *Meter) message(id string, u agented.Usage) {
	if id != m.nowID || id == "" {
		addUsage(&m.sum, m.now)
		if m.now.Known() {
			m.price(m.now)
		}
		m.now, m.nowID = agented.Usage{}, id
	}
	if u.Known() {
		m.now = u
	}
}

// price adds the cost of tokens by the price list.
func (m *Meter) price(u agented.Usage) {
	usd, ok := m.estimate(u)
	m.cost.Plus(Number{usd, ok})
	m.priced = true
	m.blind = m.blind || !ok
}

// estimate prices tokens of the current model and records which list entry was used.
func (m *Meter) estimate(u agented.Usage) (float64, bool) {
	usd, like, ok := m.prices.Estimate(m.Model(), u)
	switch {
	case like != "":
		m.like = like
	case !ok && (u.InputTokens != nil || u.OutputTokens != nil):
		m.strange = cmp.Or(m.Model(), "unknown")
	}
	return usd, ok
}

// Like returns the list entry that was used for a model without a price, or "".
func (m *Meter) Like() string { return m.like }

// Unpriced returns the model that could not be priced, or "". Call it after Usage.
func (m *Meter) Unpriced() string { return m.strange }

// Ahead reports whether messages were used since the last result.
func (m *Meter) Ahead() bool { return m.last != nil && (m.sum.Known() || m.now.Known()) }

func addUsage(sum *agented.Usage, u agented.Usage) {
	for _, f := range []struct{ to, from **int64 }{
		{&sum.InputTokens, &u.InputTokens},
		{&sum.OutputTokens, &u.OutputTokens},
		{&sum.CacheReadTokens, &u.CacheReadTokens},
		{&sum.CacheWriteTokens, &u.CacheWriteTokens},
	} {
		if *f.from == nil {
			continue
		}
		n := **f.from
		if *f.to != nil {
			n += **f.to
		}
		*f.to = &n
	}
}
