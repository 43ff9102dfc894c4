package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agented/agented"
	"modernc.org/sqlite"

	"github.com/agented/agented/internal/database"
	engine "github.com/agented/agented/internal/sqlite"
	"github.com/agented/agented/internal/testrun/pgtest"
)

func TestCreateFirstAdmin_concurrent(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			err := db.CreateFirstAdmin(t.Context(), &User{Name: fmt.Sprint("u", i), PasswordHash: "h"})
			if err == nil {
				won.Add(1)
			} else if !errors.Is(err, agented.Conflict) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := must(db.UserCount(t.Context()))(t); won.Load() != 1 || n != 1 {
		t.Errorf("%d succeeded, %d users", won.Load(), n)
	}
}

func TestUsers_last_active_admin(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	ctx := t.Context()
	ann := &User{Name: "Ann", PasswordHash: "h"}
	if err := db.CreateFirstAdmin(ctx, ann); err != nil {
		t.Fatal(err)
	}
	wantKind(t, db.CreateUser(ctx, &User{Name: "aNN", Role: agented.RoleViewer}, "Ann"), agented.Conflict)
	bob := &User{Name: "Bob", PasswordHash: "h", Role: agented.RoleAdmin, Disabled: true}
	if err := db.CreateUser(ctx, bob, "Ann"); err != nil {
		t.Fatal(err)
	}
	demoted, disabled := *ann, *ann
	demoted.Role, disabled.Disabled = agented.RoleOperator, true
	wantKind(t, db.UpdateUser(ctx, &demoted, "Ann"), agented.Conflict)
	wantKind(t, db.UpdateUser(ctx, &disabled, "Ann"), agented.Conflict)
	wantKind(t, db.DeleteUser(ctx, ann.ID, "Ann"), agented.Conflict)
	if got := must(db.UserByName(ctx, "ANN"))(t); got.Role != agented.RoleAdmin || got.Disabled || got.PasswordHash != "h" {
		t.Errorf("a refused change stayed: %+v", got)
	}
	bob.Disabled = false
	if err := db.UpdateUser(ctx, bob, "Ann"); err != nil {
		t.Fatal(err)
	}
	if err := db.DeleteUser(ctx, ann.ID, "Bob"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, db.DeleteUser(ctx, ann.ID, "Bob"), agented.NotFound)
	log, _, err := db.AuditLog(ctx, Page{})
	if err != nil || len(log) != 4 {
		t.Fatalf("%d audit entries, %v: %+v", len(log), err, log)
	}
	actions := map[string]int{}
	for _, a := range log {
		actions[a.Action]++
		if strings.Contains(a.Detail, "h,") {
			t.Error("a hash in the audit")
		}
	}
	if actions["user.create"] != 2 || actions["user.update"] != 1 || actions["user.delete"] != 1 {
		t.Errorf("%v", actions)
	}
}

func TestSessions(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	ctx := t.Context()
	ann := &User{Name: "ann", PasswordHash: "h"}
	bob := &User{Name: "bob", PasswordHash: "h", Role: agented.RoleViewer}
	if err := errors.Join(db.CreateFirstAdmin(ctx, ann), db.CreateUser(ctx, bob, "ann")); err != nil {
		t.Fatal(err)
	}
	login := func(u *User, secret string) *Session {
		s := &Session{User: u.ID, CreatedAt: start, ExpiresAt: start.Add(time.Hour), Address: "10.0.0.1", UserAgent: "curl"}
		if err := db.CreateSession(ctx, s, []byte(secret)); err != nil {
			t.Fatal(err)
		}
		return s
	}
	good := func(secret string, now time.Time) bool {
		_, u, err := db.SessionByHash(ctx, []byte(secret), now)
		if err != nil {
			wantKind(t, err, agented.Unauthenticated)
		} else if u.Name == "" || u.PasswordHash != "" {
			t.Errorf("%+v", u)
		}
		return err == nil
	}
	a1 := login(ann, "a1")
	login(ann, "a2")
	b1 := login(bob, "b1")
	if !good("a1", start) || good("a1", start.Add(time.Hour)) || good("zz", start) {
		t.Error("who is logged in is wrong")
	}
	if err := db.TouchSession(ctx, a1, "10.0.0.1", start.Add(59*time.Second), start.Add(3*time.Hour)); err != nil || good("a1", start.Add(2*time.Hour)) {
		t.Error("written more often than once a minute", err)
	}
	if err := db.TouchSession(ctx, a1, "10.0.0.2", start.Add(time.Minute), start.Add(3*time.Hour)); err != nil || !good("a1", start.Add(2*time.Hour)) {
		t.Error("not prolonged", err)
	}
	list, err := db.Sessions(ctx, ann.ID, start)
	if err != nil || len(list) != 2 {
		t.Error(list, err)
	}
	wantKind(t, db.RevokeSession(ctx, b1.ID, ann.ID), agented.NotFound)
	if err := db.SetPassword(ctx, ann.ID, "new", a1.ID, "ann"); err != nil || !good("a1", start) || good("a2", start) {
		t.Error("a new password has to end the other sessions", err)
	}
	bob.Disabled = true
	if err := db.UpdateUser(ctx, bob, "ann"); err != nil || good("b1", start) {
		t.Error("a disabled user is logged in", err)
	}
	if n, err := db.SweepSessions(ctx, start.Add(4*time.Hour)); err != nil || n != 1 {
		t.Errorf("swept %d, %v", n, err)
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	ctx := t.Context()
	k := &Key{Name: "ci", Prefix: "agk_12", Role: agented.RoleOperator, CreatedAt: start}
	if err := db.CreateKey(ctx, k, []byte("hash"), "ann"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, db.CreateKey(ctx, &Key{Name: "CI"}, []byte("other"), "ann"), agented.Conflict)
	got := must(db.KeyByHash(ctx, []byte("hash")))(t)
	if got.ID != k.ID || got.Role != agented.RoleOperator || !got.UsedAt.IsZero() || got.CreatedBy != "ann" {
		t.Errorf("%+v", got)
	}
	if err := db.TouchKey(ctx, got, start.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	got = must(db.KeyByHash(ctx, []byte("hash")))(t)
	if err := db.TouchKey(ctx, got, start.Add(90*time.Second)); err != nil {
		t.Fatal(err)
	}
	if got = must(db.KeyByHash(ctx, []byte("hash")))(t); !got.UsedAt.Equal(start.Add(time.Minute)) {
		t.Errorf("used at %v", got.UsedAt)
	}
	if err := db.RevokeKey(ctx, k.ID, "ann", start); err != nil {
		t.Fatal(err)
	}
	wantKind(t, db.RevokeKey(ctx, k.ID, "ann", start), agented.Conflict)
	wantKind(t, db.RevokeKey(ctx, "key-x", "ann", start), agented.NotFound)
	_, err := db.KeyByHash(ctx, []byte("hash"))
	wantKind(t, err, agented.Unauthenticated)
	if err := db.CreateKey(ctx, &Key{Name: "ci"}, []byte("third"), "ann"); err != nil {
		t.Error("the name of a revoked key is taken:", err)
	}
	list, next, err := db.Keys(ctx, Page{Limit: 1})
	if err != nil || len(list) != 1 || next == "" {
		t.Fatal(list, next, err)
	}
	rest, _, err := db.Keys(ctx, Page{Limit: 1, Cursor: next})
	if err != nil || len(rest) != 1 || rest[0].ID != k.ID {
		t.Error(rest, err)
	}
}

func TestSettingsAndHealth(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	ctx := t.Context()
	_, err := db.Setting(ctx, "a")
	wantKind(t, err, agented.NotFound)
	for _, v := range []string{"1", "2"} {
		if err := db.SetSetting(ctx, "a", v); err != nil || must(db.Setting(ctx, "a"))(t) != v {
			t.Error(v, err)
		}
	}
	if err := errors.Join(db.Ping(ctx), db.SetSetting(ctx, "heartbeat", "1"), db.SetSetting(ctx, "heartbeat", "1")); err != nil {
		t.Error(err)
	}
	admit(t, db, "trg-a", start)
	admit(t, db, "trg-a", start.Add(time.Second))
	q := must(db.Queue(ctx, start.Add(time.Minute)))(t)
	if q.Pending != 2 || q.Due != 2 || q.OldestDue != time.Minute {
		t.Errorf("%+v", q)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := db.RequestCancel(gone, "exec-x", "", start); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	wantKind(t, db.SetSetting(ctx, "heartbeat", "1"), agented.Unavailable)
	wantKind(t, db.Ping(ctx), agented.Unavailable)
}

func TestWrite_full_disk(t *testing.T) {
	pgtest.SkipSelected(t, "a limit of the pages of the file")
	t.Parallel()
	db := openNew(t)
	var pages int
	err := db.write(t.Context(), "test", func(tx *tx) error {
		if err := tx.row(`PRAGMA page_count`).Scan(&pages); err != nil {
			return err
		}
		return tx.exec(fmt.Sprintf(`PRAGMA max_page_count = %d`, pages+1))
	})
	if err != nil {
		t.Fatal(err)
	}
	e := newExecution("", start)
	e.Prompt = strings.Repeat("x", 1<<20)
	_, err = db.Admit(t.Context(), Admission{Execution: e}, start)
	wantKind(t, err, agented.Unavailable)
	if !strings.Contains(agented.Message(err), "free some space") || engine.FaultOf(err) != database.DiskFull {
		t.Error(err)
	}
	if _, ok := errors.AsType[*sqlite.Error](err); !ok {
		t.Error("the cause is lost")
	}
	_, err = db.Execution(t.Context(), e.ID)
	wantKind(t, err, agented.NotFound)
	if err := db.SetSetting(t.Context(), "heartbeat", "1"); err != nil {
		t.Error("what still fits has to go on:", err)
	}
}
