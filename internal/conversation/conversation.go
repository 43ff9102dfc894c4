// Package conversation runs conversations with agents: each message starts a turn, which is an
// execution, and what the agent prints in it becomes events of the conversation.
package conversation

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/printed"
	"github.com/agented/agented/internal/store"
)

// Executions runs the executions of turns.
type Executions interface {
	// EnabledAgent returns an agent by id or name, or Conflict if it cannot work.
	EnabledAgent(idOrName string) (*agented.Agent, error)
	// Wake starts what was admitted.
	Wake()
	Cancel(ctx context.Context, id agented.ExecutionID, by agented.Principal) (*agented.Execution, error)
	// Printed returns the text of an execution's log as it was printed.
	Printed(e *agented.Execution) *printed.Text
	// CleanUp removes what an execution no longer needs once its log has been read.
	CleanUp(ctx context.Context, id agented.ExecutionID)
}

// Options configures a Manager.
type Options struct {
	DB         *store.DB
	Layout     agented.Layout
	Executions Executions
	StaleAfter time.Duration                // idle time after which a conversation is closed; 0 means never
	Notified   func(agented.ConversationID) // is called when a conversation has new events; may be nil
	Now        func() time.Time             // nil means time.Now
	Log        *slog.Logger
}

// Manager runs the conversations of a server. Posts may be stored at any time; Run processes them.
type Manager struct {
	o    Options
	wake chan struct{}
	work sync.WaitGroup // the loops of conversations, and what follows their turns

	mu     sync.Mutex                               // guards active
	active map[agented.ConversationID]chan struct{} // wakes the loop of a conversation
}

// New returns a manager that is not running yet.
func New(o Options) *Manager {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Manager{o: o, wake: make(chan struct{}, 1), active: map[agented.ConversationID]chan struct{}{}}
}

// now returns the time in UTC, truncated to the microseconds that the store keeps.
func (m *Manager) now() time.Time { return m.o.Now().UTC().Truncate(time.Microsecond) }

// wakeLoop wakes the loop of a conversation after a new post or a change of its turn.
func (m *Manager) wakeLoop(id agented.ConversationID) {
	// Send under the lock, because start checks its channel once more after the loop has ended.
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.active[id]
	if c == nil {
		c = m.wake // no loop yet: Run starts one
	}
	select {
	case c <- struct{}{}:
	default:
	}
}

// Changed is called after each stored change of an execution. It does not block.
func (m *Manager) Changed(e agented.ExecutionEvent) {
	if c := e.Execution.Cause; c != nil && c.Conversation != "" {
		m.wakeLoop(c.Conversation)
	}
}

// Say stores a post in a conversation; its turn starts asynchronously. A post with the key of an
// earlier one is not stored again, and repeated is true.
func (m *Manager) Say(ctx context.Context, p *store.PostMessage) (repeated bool, err error) {
	repeated, err = m.o.DB.AddPost(ctx, p, m.now())
	if err == nil {
		m.notifyEvents(p.Conversation)
		m.wakeLoop(p.Conversation)
	}
	return repeated, err
}

// Interrupt stops the running turn and withdraws waiting posts. It reports whether there was
// anything to stop.
func (m *Manager) Interrupt(ctx context.Context, id agented.ConversationID, by agented.Principal) (bool, error) {
	c, err := m.o.DB.Conversation(ctx, id)
	if err != nil {
		return false, err
	}
	n, err := m.o.DB.DiscardQueued(ctx, id, by.Name, m.now())
	if err != nil {
		return false, err
	}
	m.notifyEvents(id)
	if c.Turn == "" {
		return n > 0, nil
	}
	_, err = m.o.Executions.Cancel(ctx, c.Turn, by)
	if agented.KindOf(err) == agented.Conflict {
		err = nil // it has ended meanwhile
	}
	m.wakeLoop(id)
	return true, err
}

// Close closes a conversation; a new post reopens it.
func (m *Manager) Close(ctx context.Context, id agented.ConversationID, by agented.Principal) error {
	err := m.o.DB.CloseConversation(ctx, id, by.Name, m.now())
	if err == nil {
		m.notifyEvents(id)
	}
	return err
}

// notifyEvents notifies clients that a conversation has new events.
func (m *Manager) notifyEvents(id agented.ConversationID) {
	if m.o.Notified != nil {
		m.o.Notified(id)
	}
}

// Intervals of conversations.
const (
	pollInterval  = 5 * time.Second        // fallback interval for reading an active conversation
	relayInterval = 100 * time.Millisecond // minimum interval between writes of answer pieces
	staleLook     = time.Minute
	keepPieces    = 24 * time.Hour // how long pieces of ended answers are kept for clients that reconnect
)

// Run starts a loop for every conversation with a running turn or a waiting post, and closes idle
// conversations. It returns when ctx and all its goroutines have ended; running turns continue.
func (m *Manager) Run(ctx context.Context) {
	defer m.work.Wait()
	every := staleLook
	if s := m.o.StaleAfter; s > 0 && s < 2*every {
		every = max(s/4, 100*time.Millisecond)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		ids, err := m.o.DB.UnfinishedConversations(ctx)
		if err != nil && ctx.Err() == nil {
			m.o.Log.Error("conversations", "err", err)
		}
		for _, id := range ids {
			m.start(ctx, id)
		}
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		case <-tick.C:
			m.closeStale(ctx)
		}
	}
}

func (m *Manager) closeStale(ctx context.Context) {
	if m.o.StaleAfter <= 0 {
		return
	}
	now := m.now()
	ids, err := m.o.DB.CloseStale(ctx, now.Add(-m.o.StaleAfter), now, 100)
	if err != nil && ctx.Err() == nil {
		m.o.Log.Error("close idle conversations", "err", err)
	}
	for _, id := range ids {
		m.o.Log.Info("conversation closed: idle for too long", "conversation", id)
		m.notifyEvents(id)
		if err := m.o.DB.Compact(ctx, id, now.Add(-keepPieces)); err != nil && ctx.Err() == nil {
			m.o.Log.Error("compact a conversation", "conversation", id, "err", err)
		}
	}
}

// start starts the loop of a conversation unless it is running.
func (m *Manager) start(ctx context.Context, id agented.ConversationID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.active[id] != nil {
		return
	}
	wake := make(chan struct{}, 1)
	m.active[id] = wake
	m.work.Go(func() {
		err := m.run(ctx, id, wake)
		m.mu.Lock()
		delete(m.active, id)
		m.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			m.o.Log.Error("conversation", "conversation", id, "err", err)
			return // Run starts it again
		}
		select { // a wake-up that arrived while the loop ended
		case <-wake:
			select {
			case m.wake <- struct{}{}:
			default:
			}
		default:
		}
	})
}

// run processes one conversation until it has no turn and no post.
func (m *Manager) run(ctx context.Context, id agented.ConversationID, wake chan struct{}) error {
	for ctx.Err() == nil {
		c, err := m.o.DB.Conversation(ctx, id)
		if agented.KindOf(err) == agented.NotFound {
			return nil
		}
		if err != nil {
			return err
		}
		if c.Turn != "" {
			if err := m.relayTurn(ctx, c, wake); err != nil {
				return err
			}
			continue
		}
		p, err := m.o.DB.NextPost(ctx, id)
		if err != nil || p == nil {
			return err
		}
		if err := m.beginTurn(ctx, c, p); err != nil {
			return err
		}
	}
	return nil
}
