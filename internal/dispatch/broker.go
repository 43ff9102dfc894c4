package dispatch

import (
	"fmt"
	"slices"
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
	on := d.o.Broker != nil && d.o.Broker()
	r := broker.Request{Backend: p.cli.Name(), Env: p.vars, Dir: p.dir, Foreign: p.foreign, Credentials: on}
	network := p.e.Snapshot.Network
	switch level := p.level.Level; {
	case level == agented.SandboxStrict:
		forwarded := d.forwardedPort()
		r.Port = d.brokerPort()
		r.Credentials = on && !callsPort(p.vars, forwarded)
		if network != nil || on && forwarded == 0 {
			r.Allow = d.reachable(p.e)
		}
	case network != nil:
		return agented.Errorf(agented.Invalid,
			"network applies at sandbox level strict only, and the execution would run at %s: set sandbox to strict, or remove network", level)
	}
	if w := p.e.Snapshot.Workspace; w != nil && w.Access != "" {
		token, err := d.workspaceToken(p.e, p.secrets)
		if err != nil {
			return err
		}
		r.Git = &broker.GitAccess{Repository: w.Repository, Token: token, Push: w.Access == agented.GitPush}
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

// reachable returns the hosts that an attempt at level strict may reach besides those of its model.
func (d *Dispatcher) reachable(e *agented.Execution) []string {
	out := []string{}
	if n := e.Snapshot.Network; n != nil {
		out = append(out, n.Allow...)
	}
	if w := e.Snapshot.Workspace; w != nil && w.Access == "" { // otherwise git uses the broker
		if host := broker.HostOf(w.Repository); host != "" {
			out = append(out, host)
		}
	}
	return out
}

// brokerPort returns the port of a broker in a sandbox with a network of its own, in which nothing
// else listens except the forwarded port.
func (d *Dispatcher) brokerPort() int {
	const usual = 20998
	if d.forwardedPort() == usual {
		return usual + 1
	}
	return usual
}

// forwardedPort returns the port of AGENTED_SANDBOX_FORWARD, or 0.
func (d *Dispatcher) forwardedPort() int {
	if d.o.Forward == nil {
		return 0
	}
	port, _ := d.o.Forward()
	return port
}

// callsPort reports whether the address of a model's API is a port in the sandbox.
func callsPort(vars map[string]string, port int) bool {
	for _, name := range []string{"ANTHROPIC_BASE_URL", "OPENAI_BASE_URL", "GOOGLE_GEMINI_BASE_URL"} {
		for _, host := range []string{"127.0.0.1", "localhost"} {
			if port > 0 && broker.HostOf(vars[name]) == fmt.Sprintf("%s:%d", host, port) {
				return true
			}
		}
	}
	return false
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
	d.brokerRecords(e, func(r broker.Record) {
		if r.Refused == nil {
			last = r
		}
	})
	if last.Limited() && last.Until.After(d.now().Add(minBrokerWait)) {
		result.Limit.Until = last.Until
	}
}

// brokerRecords passes the reports of an attempt's broker to a function.
func (d *Dispatcher) brokerRecords(e *agented.Execution, each func(broker.Record)) {
	for at := int64(0); ; {
		records, next, err := shim.BrokerRecords(d.o.Layout.Attempt(e.ID, e.AttemptNo), at)
		if err != nil || next == at {
			return
		}
		at = next
		for _, r := range records {
			each(r)
		}
	}
}

// maxRefused is how many refused addresses are stored.
const maxRefused = 50

// brokerUse returns what the broker of an ended attempt did, or nil if it had none.
func (d *Dispatcher) brokerUse(e *agented.Execution, mask func(string) string) *agented.BrokerUse {
	spec, err := shim.ReadSpec(d.o.Layout.Attempt(e.ID, e.AttemptNo))
	if err != nil || !spec.Broker {
		return nil
	}
	use := &agented.BrokerUse{Credentials: spec.Credentials}
	d.brokerRecords(e, func(r broker.Record) {
		if r.Refused == nil {
			return
		}
		address := mask(r.Refused.Address)
		known := slices.IndexFunc(use.Refused, func(a agented.RefusedAddress) bool { return a.Address == address })
		switch {
		case address == "":
			use.More = r.Refused.Count
		case known >= 0:
			use.Refused[known].Count = max(use.Refused[known].Count, r.Refused.Count)
		case len(use.Refused) < maxRefused:
			use.Refused = append(use.Refused, agented.RefusedAddress{Address: address, Reason: mask(r.Refused.Reason), Count: r.Refused.Count})
		}
	})
	return use
}
