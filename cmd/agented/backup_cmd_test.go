package main_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agented/agented/internal/store"
)

// replace replaces a server's data with a restored backup, and starts the server on it.
func (s *server) replace(file string, args ...string) {
	s.t.Helper()
	s.kill()
	if err := os.RemoveAll(s.data()); err != nil {
		s.t.Fatal(err)
	}
	if out, errs, code := s.cli(append([]string{"restore", file, "--to", s.data()}, args...)...); code != 0 {
		s.t.Fatalf("restore: exit %d\n%s%s", code, out, errs)
	}
	s.start()
}

// hook sends a webhook to a trigger's address and returns what it fired.
func (s *server) hook(trigger, key string) (got struct {
	Duplicate  bool     `json:"duplicate"`
	Executions []string `json:"execution_ids"`
}, err error,
) {
	req, err := http.NewRequest(http.MethodPost, "http://"+s.addr+"/hooks/"+trigger, strings.NewReader(`{"n":1}`))
	if err != nil {
		return got, err
	}
	req.Header.Set("Authorization", "Bearer a-secret-for-the-backup-test")
	req.Header.Set("X-Delivery-ID", key)
	req.Header.Set("Webhook-Id", key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return got, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		return got, fmt.Errorf("status %d", resp.StatusCode)
	}
	return got, json.NewDecoder(resp.Body).Decode(&got)
}

// This is the procedure of docs/operations/backup.md.
func TestBackup_under_load(t *testing.T) {
	t.Parallel()
	s := newServer(t, "AGENTED_MAX_CONCURRENT=4")
	phrase := filepath.Join(s.dir, "passphrase")
	if err := os.WriteFile(phrase, []byte("correct horse battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	short := s.trigger(map[string]any{
		"name": "short", "backend": "command", "command": []string{"sh", "-c", "seq 1 200; echo done"}, "max_concurrent": 3, "overlap": "queue",
		"webhooks": []any{map[string]any{"source": "webhook", "auth": map[string]any{"kind": "bearer"}, "secret": "a-secret-for-the-backup-test"}},
	})
	long := s.trigger(map[string]any{"name": "long", "backend": "command", "command": []string{"sh", "-c", "while :; do echo still here; sleep 0.01; done"}})
	running := s.fire(long)
	s.waitFor("the long one to print", func() bool { return len(s.lines(running)) > 20 })

	// Load: manual firings and webhooks before, during and after the backup.
	type ack struct{ key, id string }
	var mu sync.Mutex // guards acks and errs
	var acks []ack
	var errs []error
	stop := make(chan struct{})
	var load sync.WaitGroup
	for w := range 3 {
		load.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(60 * time.Millisecond):
				}
				a := ack{key: fmt.Sprintf("key-%d-%d", w, i)}
				got, err := s.hook(short, a.key)
				if err == nil && len(got.Executions) == 1 {
					a.id = got.Executions[0]
				} else if err == nil {
					err = fmt.Errorf("fired %v", got.Executions)
				}
				mu.Lock()
				if err != nil {
					errs = append(errs, err)
				} else {
					acks = append(acks, a)
				}
				mu.Unlock()
				// Some are pending at any time, and never many more than end meanwhile.
				for e := (execution{}); err == nil && i%3 == 2 && !e.final(); {
					select {
					case <-stop:
						return
					case <-time.After(20 * time.Millisecond):
					}
					_, _ = s.try("GET", "/api/v1/executions/"+a.id, nil, &e)
				}
			}
		})
	}
	acknowledged := func() []ack {
		mu.Lock()
		defer mu.Unlock()
		return append([]ack(nil), acks...)
	}
	ended := map[string]map[string]any{}
	s.waitFor("some to end", func() bool {
		for _, a := range acknowledged() {
			var e map[string]any
			if _, err := s.try("GET", "/api/v1/executions/"+a.id, nil, &e); err == nil && e["status"] == "success" {
				ended[a.id] = e
			}
			if len(ended) >= 12 {
				return true
			}
		}
		return false
	})
	before := acknowledged()
	seen := len(s.lines(running))
	file := filepath.Join(s.dir, "a.backup")
	out, errText, code := s.cli("backup", "--passphrase-file", phrase, file)
	if code != 0 {
		t.Fatalf("backup: exit %d\n%s%s", code, out, errText)
	}
	t.Logf("under load, %d acknowledged before, %d when it ended:\n%s", len(before), len(acknowledged()), out)
	close(stop)
	load.Wait()
	if len(errs) > 0 {
		t.Errorf("%d calls failed while the backup was taken, the first: %v", len(errs), errs[0])
	}
	want := map[string][]logLine{}
	for id := range ended {
		want[id] = s.lines(id)
	}
	whole := s.lines(running)

	if out, errText, code := s.cli("restore", file, "--check", "--passphrase-file", phrase, "--json"); code != 0 || !strings.Contains(out, `"log_lines"`) {
		t.Fatalf("check: exit %d\n%s%s", code, out, errText)
	}
	r := newServer(t)
	r.replace(file, "--passphrase-file", phrase)
	for id, e := range ended {
		var got map[string]any
		r.call("GET", "/api/v1/executions/"+id, nil, &got)
		if !reflect.DeepEqual(got, e) {
			t.Errorf("%s was\n%v\nand is\n%v", id, e, got)
		}
		if got := r.lines(id); !reflect.DeepEqual(got, want[id]) {
			t.Errorf("%s had %d lines and has %d", id, len(want[id]), len(got))
		}
	}
	for _, a := range before {
		got, err := r.hook(short, a.key)
		if err != nil || !got.Duplicate || len(got.Executions) != 1 || got.Executions[0] != a.id {
			t.Fatalf("%s was acknowledged as %s before the backup and is %+v, %v", a.key, a.id, got, err)
		}
	}
	if e := r.await(before[len(before)-1].id); e.Status != "success" && e.Status != "interrupted" {
		t.Errorf("what was acknowledged last is %+v", e)
	}
	e := r.await(running)
	lines := r.lines(running)
	if e.Status != "interrupted" || int64(len(lines)) < int64(seen) || e.LastSeq != lines[len(lines)-1].Seq {
		t.Errorf("what ran is %+v with %d lines; %d had been seen", e, len(lines), seen)
	}
	for i, l := range lines {
		if l.Stream == "stdout" && !reflect.DeepEqual(l, whole[i]) {
			t.Fatalf("line %d was %+v and is %+v", i, whole[i], l)
		}
	}
	s.call("POST", "/api/v1/executions/"+running+"/cancel", nil, nil)
	if e := s.await(running); e.Status != "cancelled" {
		t.Errorf("the original's execution is %+v: the restored server must not touch it", e)
	}
}

func TestBackup_missed_schedule(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "backups")
	s := newServer(t, "AGENTED_BACKUP_DIR="+folder, "AGENTED_BACKUP_SCHEDULE=0 3 * * *", "AGENTED_BACKUP_KEEP=1")
	state := func() (b struct {
		LastSuccess *string `json:"last_success_at"`
		Problem     string  `json:"problem"`
		Folder      string  `json:"dir"`
	},
	) {
		s.call("GET", "/api/v1/backup", nil, &b)
		return b
	}
	if b := state(); b.Folder != folder || b.Problem != "" {
		t.Errorf("at the start: %+v", b)
	}
	// As if it had been due while the server was down.
	s.kill()
	db, err := store.Open(t.Context(), filepath.Join(s.data(), "agented.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.SetSetting(t.Context(), "backup", `{"since":"2020-01-01T00:00:00Z"}`), db.Close()); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.waitFor("the missed backup to be taken", func() bool { return state().LastSuccess != nil })
	list, err := filepath.Glob(filepath.Join(folder, "agented-*.backup"))
	if err != nil || len(list) != 1 {
		t.Fatalf("%v %v", list, err)
	}
	if out, errs, code := s.cli("restore", list[0], "--check"); code != 0 {
		t.Errorf("check: exit %d\n%s%s", code, out, errs)
	}
}

func TestRetention_commands(t *testing.T) {
	t.Parallel()
	s := newServer(t, "AGENTED_KEEP_LOGS_MB=0", "AGENTED_KEEP_EXECUTIONS=1")
	id := s.trigger(map[string]any{"name": "t", "backend": "command", "command": []string{"echo", "hi"}})
	var ids []string
	for range 4 {
		ids = append(ids, s.fire(id))
		s.await(ids[len(ids)-1])
	}
	if _, errs, code := s.cli("execution", "pin", ids[0]); code != 0 || !strings.Contains(errs, "is pinned") {
		t.Fatalf("pin: exit %d %s", code, errs)
	}
	var forecast struct {
		Expired struct{ Executions, Bytes int64 } `json:"expired"`
	}
	s.waitFor("their files to be cleaned up", func() bool {
		out, _, code := s.cli("prune", "--dry-run", "--json")
		return code == 0 && json.Unmarshal([]byte(out), &forecast) == nil && forecast.Expired.Executions == 3 && forecast.Expired.Bytes > 0
	})
	out, errs, code := s.cli("prune")
	if code != 0 || !strings.Contains(out, "executions") {
		t.Fatalf("prune: exit %d\n%s%s", code, out, errs)
	}
	for i, id := range ids {
		var e struct {
			Pinned bool `json:"pinned"`
		}
		status, _ := s.try("GET", "/api/v1/executions/"+id, nil, &e)
		_, err := os.Stat(filepath.Join(s.data(), "executions", id))
		if kept := i == 0; (status == http.StatusOK) != kept || (err == nil) != kept || e.Pinned != kept {
			t.Errorf("execution %d: status %d, pinned %v, folder %v", i, status, e.Pinned, err)
		}
	}
	if _, _, code := s.cli("execution", "unpin", ids[0]); code != 0 {
		t.Errorf("unpin: exit %d", code)
	}
}
