package backend

import (
	_ "embed"
	"sync"

	"github.com/agented/agented"
)

//go:embed prices.json
var pricesJSON []byte

// DefaultPrices is the list of prices that comes with this version.
var DefaultPrices = sync.OnceValue(func() *agented.Prices {
	p, err := agented.ParsePrices(pricesJSON)
	if err != nil {
		panic(err) // a test reads it
	}
	return p
})

// Meter adds up what an attempt uses while it runs, from the lines that its CLI
// prints. It keeps bounded memory and takes any bytes. What a CLI prints only at
// its end is not known before.
type Meter struct {
	backend, asked string
	prices         *agented.Prices
	line           func(*Meter, []byte)

	model   string
	session string
	sum     agented.Usage // of what is over
	cost    number        // likewise
	blind   bool          // the cost of something is not known
	priced  bool          // some of it comes from the list of prices
	now     agented.Usage // of the message under way, which later lines of it correct
	nowID   string
	last    *agented.Usage // what the CLI itself says at its end
}

// NewMeter returns a meter for a backend. model is what was asked for, for CLIs
// that do not say which they use.
func NewMeter(backend, model string, prices *agented.Prices) *Meter {
	lines := map[string]func(*Meter, []byte){
		agented.BackendClaude: claudeMeter, agented.BackendCodex: codexMeter,
		agented.BackendGemini: geminiMeter, agented.BackendOpenCode: openCodeMeter,
		agented.BackendAnthropic: claudeMeter,
	}
	return &Meter{backend: backend, asked: model, prices: prices, line: lines[backend]}
}

// Line takes one whole line without its newline.
func (m *Meter) Line(stream agented.Stream, content []byte) {
	if m.line != nil && stream == agented.Stdout {
		m.line(m, content)
	}
}

// Model is the model that is used, as far as that is known.
func (m *Meter) Model() string {
	if m.model != "" {
		return m.model
	}
	return m.asked
}

// Session is the CLI's own session, if it has named one.
func (m *Meter) Session() string { return m.session }

// Usage is what has been used so far. A cost that was worked out from the list
// of prices is marked as such; one that nobody knows is nil.
func (m *Meter) Usage() agented.Usage {
	if m.last != nil {
		u := *m.last
		if u.CostUSD == nil && !u.CumulativeSession {
			if usd, ok := m.prices.Cost(m.Model(), u); ok {
				u.CostUSD, u.Estimated = &usd, true
			}
		}
		return u
	}
	u, cost, blind := m.sum, m.cost, m.blind
	addUsage(&u, m.now)
	if m.now.Known() {
		usd, ok := m.prices.Cost(m.Model(), m.now)
		cost.plus(number{usd, ok})
		blind = blind || !ok
	}
	if u.CostUSD = nil; cost.known && !blind {
		u.CostUSD, u.Estimated = cost.money(), m.priced || m.now.Known()
	}
	return u
}

// message takes what is known of one message of a model. Lines of the same
// message repeat and correct each other.
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

// price adds what the tokens cost by the list of prices.
func (m *Meter) price(u agented.Usage) {
	usd, ok := m.prices.Cost(m.Model(), u)
	m.cost.plus(number{usd, ok})
	m.priced = true
	m.blind = m.blind || !ok
}

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

func claudeMeter(m *Meter, content []byte) {
	var l struct {
		claudeLine
		Message struct {
			ID    string `json:"id"`
			Model string `json:"model"`
			Usage *struct {
				Input      number `json:"input_tokens"`
				Output     number `json:"output_tokens"`
				CacheRead  number `json:"cache_read_input_tokens"`
				CacheWrite number `json:"cache_creation_input_tokens"`
			} `json:"usage"`
		} `json:"message"`
		Model string `json:"model"`
	}
	if !decode(content, &l) {
		return
	}
	if l.SessionID != "" {
		m.session = clip(l.SessionID, maxID)
	}
	switch l.Type {
	case "system":
		if l.Subtype == "init" && l.Model != "" {
			m.model = clip(l.Model, maxID)
		}
	case "assistant":
		if l.Message.Usage == nil || l.Message.Model == "<synthetic>" {
			return
		}
		u := l.Message.Usage
		id := clip(l.Message.ID, maxID)
		if id != m.nowID || id == "" {
			m.message(id, agented.Usage{}) // closes the one before, at its own model's price
			if l.Message.Model != "" {
				m.model = clip(l.Message.Model, maxID)
			}
		}
		m.message(m.nowID, agented.Usage{
			InputTokens: u.Input.count(), OutputTokens: u.Output.count(), CacheReadTokens: u.CacheRead.count(), CacheWriteTokens: u.CacheWrite.count(),
		})
	case "result":
		if u := claudeUsage(&l.claudeLine); u.Known() {
			m.last = &u
		}
	}
}

func codexMeter(m *Meter, content []byte) {
	var l codexLine
	if !decode(content, &l) {
		return
	}
	switch l.Type {
	case "thread.started":
		m.session = clip(l.ThreadID, maxID)
	case "turn.completed":
		r := codexReader{}
		r.Line(agented.Stdout, content)
		if u := r.read.usage; u.Known() {
			m.last = &u
		}
	}
}

func geminiMeter(m *Meter, content []byte) {
	var l struct {
		geminiLine
		Model string `json:"model"`
	}
	if !decode(content, &l) {
		return
	}
	switch l.Type {
	case "init":
		m.session = clip(l.SessionID, maxID)
		if l.Model != "" {
			m.model = clip(l.Model, maxID)
		}
	case "result":
		r := geminiReader{}
		r.end(&l.geminiLine)
		if u := r.read.usage; u.Known() {
			m.last = &u
		}
	}
}

func openCodeMeter(m *Meter, content []byte) {
	var l openCodeLine
	if !decode(content, &l) {
		return
	}
	if l.SessionID != "" {
		m.session = clip(l.SessionID, maxID)
	}
	if l.Type != "step_finish" {
		return
	}
	if t := l.Part.Tokens; t != nil {
		out := t.Output
		out.plus(t.Reasoning)
		u := agented.Usage{InputTokens: t.Input.count(), OutputTokens: out.count(), CacheReadTokens: t.Cache.Read.count(), CacheWriteTokens: t.Cache.Write.count()}
		addUsage(&m.sum, u)
		if l.Part.Cost.v <= 0 {
			// It prints 0 for a model that it knows no price of.
			m.price(u)
			return
		}
	}
	m.cost.plus(l.Part.Cost)
}
