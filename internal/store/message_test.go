package store

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/agented/agented"
)

func newAgent(t testing.TB, db *DB, name string) *agented.Agent {
	t.Helper()
	a := &agented.Agent{Name: name, Enabled: true, Spec: agented.Spec{Backend: agented.BackendClaude}}
	if err := db.CreateAgent(t.Context(), a, "test"); err != nil {
		t.Fatal(err)
	}
	return a
}

func agentAddress(a *agented.Agent) agented.Address {
	return agented.Address{Kind: agented.ToAgent, Name: string(a.ID)}
}

func newMessage(from, to agented.Address, body string) MessageAdmission {
	return MessageAdmission{Message: agented.BusMessage{Type: "message", Priority: agented.PriorityNormal, From: from, To: to, Body: body}, Limits: agented.DefaultChainLimits}
}

func TestSendMessage_topic(t *testing.T) {
	db := openNew(t)
	a, b := newAgent(t, db, "writer"), newAgent(t, db, "Reviewer")
	topic := agented.Address{Kind: agented.ToTopic, Name: "builds"}
	for _, member := range []*agented.Agent{a, b} {
		if err := db.Join(t.Context(), topic, agentAddress(member), "test"); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		m := newMessage(agentAddress(a), topic, fmt.Sprint("build ", i))
		m.Message.Key = fmt.Sprint("k", i)
		first := must(db.SendMessage(t.Context(), m, start))(t)
		again := must(db.SendMessage(t.Context(), m, start.Add(time.Minute)))(t)
		if first.Repeated || !again.Repeated || again.Message.ID != first.Message.ID {
			t.Errorf("message %d: first %+v, then %+v", i, first, again)
		}
		if len(first.Owners) != 2 {
			t.Errorf("reached %v", first.Owners)
		}
	}
	for _, owner := range []*agented.Agent{a, b} {
		items := must(db.Inbox(t.Context(), agentAddress(owner), 0, 10, InboxFilter{}))(t)
		if len(items) != 3 {
			t.Fatalf("%s has %d items", owner.Name, len(items))
		}
		for i, item := range items {
			if item.Seq != int64(i+1) || item.Message.Body != fmt.Sprint("build ", i) || item.State != agented.InboxPending {
				t.Errorf("%s, place %d: %+v", owner.Name, i, item)
			}
		}
	}
	to := newMessage(agentAddress(a), agented.Address{Kind: agented.ToAgent, Name: "reviewer"}, "by name")
	if got := must(db.SendMessage(t.Context(), to, start))(t); len(got.Owners) != 1 || got.Owners[0] != agentAddress(b) {
		t.Errorf("by name it reached %v", got.Owners)
	}
	to.Message.To.Name = "nobody"
	if _, err := db.SendMessage(t.Context(), to, start); !errors.Is(err, agented.NotFound) {
		t.Errorf("to nobody: %v", err)
	}
}

func TestInbox_states(t *testing.T) {
	db := openNew(t)
	a := newAgent(t, db, "a")
	me := agentAddress(a)
	for i := range 3 {
		m := newMessage(me, me, fmt.Sprint(i))
		if i == 2 {
			m.Message.ExpiresAt = start.Add(time.Minute)
		}
		must(db.SendMessage(t.Context(), m, start))(t)
	}
	check := func(want ...agented.InboxState) {
		t.Helper()
		for i, item := range must(db.Inbox(t.Context(), me, 0, 10, InboxFilter{}))(t) {
			if item.State != want[i] {
				t.Errorf("item %d is %s, want %s", i+1, item.State, want[i])
			}
		}
	}
	if err := db.Acknowledge(t.Context(), me, 1, start); err != nil {
		t.Fatal(err)
	}
	if err := db.Delivered(t.Context(), me, 2, start); err != nil {
		t.Fatal(err)
	}
	check(agented.InboxRead, agented.InboxDelivered, agented.InboxPending)
	if at := must(db.NextExpiry(t.Context()))(t); at.IsZero() || at.After(start.Add(time.Minute)) {
		t.Errorf("the next expires at %v", at)
	}
	if got := must(db.ExpireMessages(t.Context(), start.Add(time.Minute), 10))(t); len(got) != 1 || got[0] != (ExpiredMessage{me, 3}) {
		t.Errorf("expired: %v", got)
	}
	if at := must(db.NextExpiry(t.Context()))(t); !at.IsZero() {
		t.Errorf("something expires at %v", at)
	}
	check(agented.InboxRead, agented.InboxDelivered, agented.InboxExpired)
	if err := db.Acknowledge(t.Context(), me, 3, start); !errors.Is(err, agented.Conflict) {
		t.Errorf("acknowledge what has expired: %v", err)
	}
	if err := db.Acknowledge(t.Context(), me, 1, start); err != nil {
		t.Errorf("acknowledge again: %v", err)
	}
	if err := db.Acknowledge(t.Context(), me, 9, start); !errors.Is(err, agented.NotFound) {
		t.Errorf("acknowledge nothing: %v", err)
	}
	unread := must(db.Inbox(t.Context(), me, 0, 10, InboxFilter{States: []agented.InboxState{agented.InboxDelivered, agented.InboxPending}}))(t)
	if len(unread) != 1 || unread[0].Seq != 2 {
		t.Errorf("unread: %+v", unread)
	}
}

func TestSendMessage_chain_limits(t *testing.T) {
	db := openNew(t)
	a := newAgent(t, db, "a")
	me := agentAddress(a)
	for _, c := range []struct {
		name   string
		limits agented.ChainLimits
		next   func(agented.BusMessage) agented.Chain
		sent   int
	}{
		{"depth", agented.ChainLimits{Depth: 5}, func(m agented.BusMessage) agented.Chain { return m.Chain.Next(string(m.ID)) }, 6},
		{"total", agented.ChainLimits{Total: 7}, func(m agented.BusMessage) agented.Chain { return m.Chain.Next(string(m.ID)) }, 7},
	} {
		m := newMessage(me, me, c.name)
		m.Limits = c.limits
		sent := 0
		for range 20 {
			got, err := db.SendMessage(t.Context(), m, start)
			if err != nil {
				if !errors.Is(err, agented.Conflict) {
					t.Errorf("%s: %v", c.name, err)
				}
				break
			}
			sent++
			m.Message.Chain = c.next(got.Message)
		}
		if sent != c.sent {
			t.Errorf("%s: %d messages went out, want %d", c.name, sent, c.sent)
		}
	}
	first := newMessage(me, me, "first")
	root := must(db.SendMessage(t.Context(), first, start))(t).Message
	reply := newMessage(me, me, "reply")
	reply.Limits = agented.ChainLimits{Fanout: 3}
	reply.Message.Chain = root.Chain.Next(string(root.ID))
	for range 3 {
		must(db.SendMessage(t.Context(), reply, start))(t)
	}
	if _, err := db.SendMessage(t.Context(), reply, start); !errors.Is(err, agented.Conflict) {
		t.Errorf("a fourth reply: %v", err)
	}
}

func TestTakeInbox(t *testing.T) {
	db := openNew(t)
	me := agentAddress(newAgent(t, db, "a"))
	for i := range 3 {
		must(db.SendMessage(t.Context(), newMessage(me, me, fmt.Sprint(i)), start))(t)
	}
	bodies := func(items []agented.InboxItem) string {
		text := ""
		for _, i := range items {
			text += i.Message.Body + " "
		}
		return text
	}
	take := func(e *agented.Execution) string {
		return must(db.TakeInbox(t.Context(), e.ID, me, 2, start, bodies))(t)
	}
	for i, c := range []struct {
		end  agented.State
		gets string
	}{{agented.StateFailed, "0 1 "}, {agented.StateSuccess, "0 1 "}, {agented.StateSuccess, "2 "}, {agented.StateSuccess, ""}} {
		admit(t, db, agented.TriggerID(fmt.Sprint("trg-", i)), start)
		e := claim(t, db, start)
		if got := take(e); got != c.gets {
			t.Errorf("execution %d got %q, want %q", i, got, c.gets)
		}
		if i == 0 {
			other := admit(t, db, "trg-other", start)
			if got := take(other); got != "2 " {
				t.Errorf("another that asks meanwhile got %q", got)
			}
			if _, err := db.RequestCancel(t.Context(), other.ID, "ann", start); err != nil {
				t.Fatal(err)
			}
		}
		if got := must(db.Execution(t.Context(), e.ID))(t); got.Prompt != c.gets {
			t.Errorf("its prompt is %q", got.Prompt)
		}
		finish(t, db, e, c.end, start)
	}
}

func TestMessageTriggers(t *testing.T) {
	db := openNew(t)
	a := newAgent(t, db, "a")
	group := agented.Address{Kind: agented.ToGroup, Name: "team"}
	if err := db.Join(t.Context(), group, agentAddress(a), "ann"); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]agented.Address{"direct": {Kind: agented.ToAgent, Name: "A"}, "list": group, "topic": {Kind: agented.ToTopic, Name: "x"}} {
		trg := &agented.Trigger{Name: name, Enabled: true, Messages: []agented.MessageRule{{To: to, Types: []agented.MessageType{"request", "alert"}, Enabled: true}}}
		if err := db.CreateTrigger(t.Context(), trg, "ann"); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		to   agented.Address
		want int
	}{{agentAddress(a), 1}, {group, 2}, {agented.Address{Kind: agented.ToTopic, Name: "x"}, 1}, {agented.Address{Kind: agented.ToTopic, Name: "y"}, 0}} {
		list, version, err := db.MessageTriggers(t.Context(), c.to)
		if err != nil || len(list) != c.want || version == "0" {
			t.Errorf("to %s: %d triggers, version %s, %v", c.to, len(list), version, err)
		}
		for _, trg := range list {
			if len(trg.Messages) != 1 || len(trg.Messages[0].Types) != 2 {
				t.Errorf("to %s: rules %+v", c.to, trg.Messages)
			}
		}
	}
}
