package dispatch

import (
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/broker"
	"github.com/agented/agented/internal/shim"
)

// minBrokerWait is the shortest wait that a provider's headers decide: within a shorter one the CLI
// itself has tried again.
const minBrokerWait = 30 * time.Second

// keepCredentials replaces the credentials in the environment of an attempt by placeholders of a
// broker.
func (d *Dispatcher) keepCredentials(p *preparation) error {
	if d.o.Broker == nil || !d.o.Broker() {
		return nil
	}
	r := broker.Request{Backend: p.cli.Name(), Env: p.vars, Dir: p.dir, Foreign: p.foreign}
	if d.level(p.e) == agented.SandboxStrict {
		r.Port = d.brokerPort()
	}
	handed, why, err := broker.Setup(r)
	if err != nil {
		return agented.Errorf(agented.Unavailable, "the credential broker could not be set up: %v", err).Because(err)
	}
	if why != "" {
		d.systemLine(p.e, "The environment of the agent contains its credential, because the credential broker cannot be used: "+why)
	}
	p.broker = handed
	return nil
}

// brokerPort returns the port of a broker in a sandbox with a network of its own, in which nothing
// else listens except the forwarded port.
func (d *Dispatcher) brokerPort() int {
	const usual = 20998
	if d.o.Forward != nil {
		if port, _ := d.o.Forward(); port == usual {
			return usual + 1
		}
	}
	return usual
}

// brokerLimit sets when an attempt that has ended at a limit can be continued, if the provider sent
// that with its last answer.
func (d *Dispatcher) brokerLimit(e *agented.Execution, result *agented.Result) {
	switch result.Class {
	case agented.ClassAccountLimit, agented.ClassThrottle, agented.ClassOverload:
	default:
		return
	}
	var last broker.Record
	for at := int64(0); ; {
		records, next, err := shim.BrokerRecords(d.o.Layout.Attempt(e.ID, e.AttemptNo), at)
		if err != nil || next == at {
			break
		}
		at = next
		if len(records) > 0 {
			last = records[len(records)-1]
		}
	}
	if last.Limited() && last.Until.After(d.now().Add(minBrokerWait)) {
		result.Limit.Until = last.Until
	}
}
