package store

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/agented/agented"
)

func turnAdmission(n int) Admission {
	return Admission{Execution: &agented.Execution{
		ID: agented.ExecutionID(agented.NewID("exec", start.Add(time.Duration(n)*time.Second))), TriggerName: "agent", Backend: agented.BackendClaude,
		Source: agented.SourceTurn, Snapshot: agented.Spec{Backend: agented.BackendClaude}, CreatedAt: start,
	}}
}

func conversationEvents(t testing.TB, db *DB, id agented.ConversationID) []string {
	t.Helper()
	list, _, err := db.ConversationEvents(t.Context(), id, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for i, e := range list {
		if e.Seq != int64(i+1) {
			t.Errorf("event %d has the number %d", i+1, e.Seq)
		}
		out = append(out, fmt.Sprintf("%s %s", e.Kind, e.Data))
	}
	return out
}

func TestConversation_turns(t *testing.T) {
	db := openNew(t)
	c := &agented.Conversation{Agent: "agt-x", AgentName: "x", CreatedAt: start}
	if err := db.CreateConversation(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		p := &PostMessage{Conversation: c.ID, Text: fmt.Sprint("say ", i), Key: fmt.Sprint(i), Actor: "ann"}
		for try := range 2 {
			if repeated := must(db.AddPost(t.Context(), p, start))(t); repeated != (try == 1) || p.Number != int64(i+1) {
				t.Errorf("post %d, try %d: repeated %v, number %d", i, try, repeated, p.Number)
			}
		}
	}
	for i := range 2 {
		p := must(db.NextPost(t.Context(), c.ID))(t)
		if p == nil || p.Number != int64(i+1) {
			t.Fatalf("next is %+v", p)
		}
		e := must(db.BeginTurn(t.Context(), c.ID, p.Number, turnAdmission(i), start))(t)
		if p := must(db.NextPost(t.Context(), c.ID))(t); p != nil {
			t.Errorf("there is a next post while %s is at work", e.ID)
		}
		if _, err := db.BeginTurn(t.Context(), c.ID, 2, turnAdmission(i+10), start); !errors.Is(err, agented.Conflict) {
			t.Errorf("a second turn: %v", err)
		}
		delta := func(line int) agented.ConversationEvent {
			return agented.ConversationEvent{Kind: agented.EventContentDelta, Data: []byte(`{}`), Execution: e.ID, Source: agented.Seq(line)}
		}
		for range 2 { // a repeated event is stored once
			if err := db.RelayEvents(t.Context(), c.ID, e.ID, []agented.ConversationEvent{delta(3), delta(4)}, start); err != nil {
				t.Fatal(err)
			}
		}
		if told := must(db.RelayedUpTo(t.Context(), c.ID, e.ID))(t); told != 4 {
			t.Errorf("told up to %d", told)
		}
		end := func() error {
			return db.EndTurn(t.Context(), c.ID, e.ID, []agented.ConversationEvent{delta(4), delta(5), event(agented.EventFinish, e.ID, map[string]any{"turn": i})},
				&agented.ResumePoint{Session: fmt.Sprint("s", i)}, start)
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if err := end(); !errors.Is(err, agented.Conflict) {
			t.Errorf("ended twice: %v", err)
		}
	}
	if got := conversationEvents(t, db, c.ID); len(got) != 2+2*(1+3+1) {
		t.Errorf("events: %q", got)
	}
	got := must(db.Conversation(t.Context(), c.ID))(t)
	if got.Resume == nil || got.Resume.Session != "s1" || got.Turn != "" || got.Queued != 0 {
		t.Errorf("at the end: %+v", got)
	}
	if ids := must(db.UnfinishedConversations(t.Context()))(t); len(ids) != 0 {
		t.Errorf("unfinished: %v", ids)
	}
}

func TestConversation_close_and_reopen(t *testing.T) {
	db := openNew(t)
	c := &agented.Conversation{Agent: "agt-x", AgentName: "x", CreatedAt: start}
	if err := db.CreateConversation(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	late := start.Add(time.Hour)
	if ids := must(db.CloseStale(t.Context(), start, late, 10))(t); len(ids) != 0 {
		t.Errorf("closed too early: %v", ids)
	}
	p := &PostMessage{Conversation: c.ID, Text: "hello"}
	must(db.AddPost(t.Context(), p, start.Add(time.Minute)))(t)
	if ids := must(db.CloseStale(t.Context(), late, late, 10))(t); len(ids) != 0 {
		t.Errorf("closed while a post waits: %v", ids)
	}
	if n := must(db.DiscardQueued(t.Context(), c.ID, "ann", start.Add(2*time.Minute)))(t); n != 1 {
		t.Errorf("took back %d", n)
	}
	if ids := must(db.CloseStale(t.Context(), start.Add(2*time.Minute), late, 10))(t); len(ids) != 0 {
		t.Errorf("closed before its last activity: %v", ids)
	}
	if ids := must(db.CloseStale(t.Context(), late, late, 10))(t); len(ids) != 1 || ids[0] != c.ID {
		t.Errorf("closed: %v", ids)
	}
	if got := must(db.Conversation(t.Context(), c.ID))(t); got.State != agented.ConversationClosed || !got.ClosedAt.Equal(late) {
		t.Errorf("closed: %+v", got)
	}
	must(db.AddPost(t.Context(), &PostMessage{Conversation: c.ID, Text: "again"}, late))(t)
	if got := must(db.Conversation(t.Context(), c.ID))(t); got.State != agented.ConversationOpen || !got.ClosedAt.IsZero() || got.Queued != 1 {
		t.Errorf("opened again: %+v", got)
	}
}

func TestConversation_compact(t *testing.T) {
	db := openNew(t)
	c := &agented.Conversation{Agent: "agt-x", AgentName: "x", CreatedAt: start}
	if err := db.CreateConversation(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		must(db.AddPost(t.Context(), &PostMessage{Conversation: c.ID, Text: "go"}, start))(t)
		e := must(db.BeginTurn(t.Context(), c.ID, int64(i+1), turnAdmission(i), start))(t)
		piece := agented.ConversationEvent{Kind: agented.EventContentDelta, Data: []byte(`{}`), Execution: e.ID, Source: 1}
		if err := db.RelayEvents(t.Context(), c.ID, e.ID, []agented.ConversationEvent{piece}, start); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := db.EndTurn(t.Context(), c.ID, e.ID, nil, nil, start); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := db.Compact(t.Context(), c.ID, start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	list, gone, err := db.ConversationEvents(t.Context(), c.ID, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	pieces := 0
	for _, e := range list {
		if e.Kind == agented.EventContentDelta {
			pieces++
			if e.Seq <= gone {
				t.Errorf("event %d is there, and gone up to %d", e.Seq, gone)
			}
		}
	}
	if pieces != 1 || gone != 3 {
		t.Errorf("%d pieces are left, gone up to %d", pieces, gone)
	}
}
