package costs

import (
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/shim"
)

// brokerInterval is how often the reports of a broker are read if nothing is printed.
const brokerInterval = time.Second

// brokerMeter is the cost of a running attempt by the reports of its broker.
type brokerMeter struct {
	bundle string
	prices *agented.Prices
	at     int64   // position in the reports
	usd    float64 // cost of the answers that have a price
	like   string  // model whose price was used for another one, or empty
	model  string  // the other one
	blind  string  // model whose answers have no price, or empty
}

// read adds the new reports.
func (m *brokerMeter) read() error {
	for {
		records, next, err := shim.BrokerRecords(m.bundle, m.at)
		if err != nil || next == m.at {
			return err
		}
		m.at = next
		for _, r := range records {
			if r.Usage == nil {
				continue
			}
			usd, like, ok := m.prices.Estimate(r.Model, *r.Usage)
			switch {
			case ok:
				m.usd += usd
				if like != "" {
					m.like, m.model = like, r.Model
				}
			case m.blind == "" && r.Usage.InputTokens != nil:
				m.blind = r.Model
			}
		}
	}
}

// spent returns the known cost of the attempt, and a model whose usage has no price, or "". Of a
// CLI that prints its usage at the end only, the broker reports it earlier.
func (f *follower) spent() (usd float64, blind string) {
	usd, blind = f.cost, f.meter.Unpriced()
	if f.broker == nil {
		return usd, blind
	}
	if blind == "" {
		blind = f.broker.blind
	}
	return max(usd, f.broker.usd), blind
}

// estimated returns a model without a price and the one whose price was used instead, or "".
func (f *follower) estimated() (model, like string) {
	if like = f.meter.Like(); like == "" && f.broker != nil {
		return f.broker.model, f.broker.like
	}
	return f.meter.Model(), like
}
