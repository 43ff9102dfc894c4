package egress

import "sync"

// maxRefused is how many different addresses are listed.
const maxRefused = 50

// Refusal is an address that was refused.
type Refusal struct {
	Address string `json:"address"` // host:port
	Reason  string `json:"reason"`
	Count   int    `json:"count"`
}

// Refusals counts what was refused. It needs bounded memory.
type Refusals struct {
	// First is called for the first refusal of each address that is listed.
	First func(Refusal)

	mu   sync.Mutex // guards the following fields
	all  []Refusal
	more int // refusals of other addresses
}

func (r *Refusals) add(address, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.all {
		if r.all[i].Address == address {
			r.all[i].Count++
			return
		}
	}
	if len(r.all) == maxRefused {
		r.more++
		return
	}
	one := Refusal{Address: address, Reason: reason, Count: 1}
	r.all = append(r.all, one)
	if r.First != nil {
		r.First(one)
	}
}

// All returns the refusals in the order of their addresses' first ones, and the number of refusals
// of addresses that are not listed.
func (r *Refusals) All() (all []Refusal, more int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append(all, r.all...), r.more
}
