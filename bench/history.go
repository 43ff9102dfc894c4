//go:build linux

package main

import (
	"compress/gzip"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	_ "modernc.org/sqlite" // for writing the history
)

// atRest measures an idle server.
func (b *bench) atRest() error {
	s, err := b.agented()
	if err != nil {
		return err
	}
	defer s.Close()
	time.Sleep(5 * time.Second)
	p := s.self()
	cpu, woken, began := p.cpu(), p.wakeups(), time.Now()
	time.Sleep(b.rest)
	span := time.Since(began).Minutes()
	b.add("rest.rss", us, p.rss()/(1<<20))
	b.add("rest.cpu", us, float64((p.cpu()-cpu).Milliseconds())/span)
	b.add("rest.wake", us, (p.wakeups()-woken)/span)
	return nil
}

// sizes measures the size of the program and of the first page in a browser.
func (b *bench) sizes() error {
	info, err := os.Stat(b.binary)
	if err != nil {
		return err
	}
	b.add("size.binary", us, float64(info.Size())/1e6)
	s, err := b.agented()
	if err != nil {
		return err
	}
	defer s.Close()
	html, n, err := s.page("/")
	if err != nil {
		return err
	}
	if !strings.Contains(html, "<script") {
		b.missing["web interface"] = "it is not built into the program (make ui), so its first page cannot be measured"
		return nil
	}
	for _, m := range regexp.MustCompile(`(?:src|href)="(/?[^"]+\.(?:js|css))"`).FindAllStringSubmatch(html, -1) {
		_, size, err := s.page("/" + strings.TrimPrefix(m[1], "/"))
		if err != nil {
			return err
		}
		n += size
	}
	b.add("size.page", us, float64(n)/1000)
	return nil
}

// page loads a page as a browser does; n is the number of bytes transferred.
func (s *server) page(path string) (text string, n int64, err error) {
	req, err := http.NewRequest("GET", s.url(path), nil)
	if err != nil {
		return "", 0, err
	}
	req.Header.Set("X-API-Key", apiKey) // without a login, the login page would be returned
	req.Header.Set("Accept-Encoding", "gzip")
	req.Header.Set("Accept", "text/html,*/*")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	if to := resp.Header.Get("Location"); to != "" && resp.StatusCode/100 == 3 {
		return s.page(to)
	}
	count := &counting{r: resp.Body}
	var in io.Reader = count
	if resp.Header.Get("Content-Encoding") == "gzip" {
		if in, err = gzip.NewReader(count); err != nil {
			return "", 0, err
		}
	}
	body, err := io.ReadAll(in)
	return string(body), count.n, err
}

type counting struct {
	r io.Reader
	n int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// history measures lists, single executions and the start with increasing numbers of executions
// in the database.
func (b *bench) history() error {
	s, err := b.agented()
	if err != nil {
		return err
	}
	defer s.Close()
	trigger, err := s.trigger(map[string]any{"name": "historic", "backend": "command", "command": []string{"true"}})
	if err != nil {
		return err
	}
	var model struct {
		ID string `json:"execution_id"`
	}
	if err := s.call("POST", "/api/v1/triggers/"+trigger+"/run", map[string]any{}, &model); err != nil {
		return err
	}
	if _, err := s.await(model.ID, time.Minute); err != nil {
		return err
	}
	have := 1
	for i, n := range b.histories {
		s.kill()
		if err := grow(filepath.Join(s.data(), "agented.db"), model.ID, have, n); err != nil {
			return fmt.Errorf("fill in the history: %w", err)
		}
		have = n
		if _, err := s.start("/health/readiness"); err != nil { // warms the page cache, as at a restart
			return err
		}
		for range b.rounds {
			s.kill()
			took, err := s.start("/health/readiness")
			if err != nil {
				return err
			}
			b.point("history.start", us, float64(n), float64(took.Microseconds())/1000)
			if i == len(b.histories)-1 {
				b.add("start.history", us, float64(took.Microseconds())/1000)
			}
		}
		list, show, err := s.ask(trigger, n)
		if err != nil {
			return err
		}
		b.point("history.list", "lists", float64(n), quantile(list, .99))
		b.point("history.list", "one execution", float64(n), quantile(show, .99))
		b.note("history of %d: list p99 %.2f ms, show p99 %.2f ms", n, quantile(list, .99), quantile(show, .99))
		if i == len(b.histories)-1 {
			b.add("history.list", us, quantile(list, .99))
			b.add("history.show", us, quantile(show, .99))
		}
	}
	return nil
}

// ask lists and shows executions in every way that the web interface does.
func (s *server) ask(trigger string, n int) (list, show []float64, err error) {
	w, err := dial(s.addr)
	if err != nil {
		return nil, nil, err
	}
	defer w.conn.Close()
	timed := func(path string) (float64, []byte, error) {
		began := time.Now()
		status, body, err := w.ask(get(path))
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("GET %s: %d %s", path, status, body)
		}
		return float64(time.Since(began).Microseconds()) / 1000, body, err
	}
	cursor := regexp.MustCompile(`"next_cursor":"([^"]+)"`)
	for range 60 {
		for _, q := range []string{"", "&status=success", "&status=failed", "&status=running", "&trigger_id=" + trigger, "&trigger_id=" + trigger + "&status=failed"} {
			path := "/api/v1/executions?limit=50" + q
			for range 3 { // this page and the next two
				ms, body, err := timed(path)
				if err != nil {
					return nil, nil, err
				}
				list = append(list, ms)
				m := cursor.FindSubmatch(body)
				if m == nil {
					break
				}
				path = "/api/v1/executions?limit=50" + q + "&cursor=" + url.QueryEscape(string(m[1]))
			}
		}
	}
	for range 1000 {
		ms, _, err := timed("/api/v1/executions/" + historicID(1+rand.IntN(n-1)))
		if err != nil {
			return nil, nil, err
		}
		show = append(show, ms)
	}
	return list, show, nil
}

// historicID returns the id of the nth execution of the history.
func historicID(n int) string { return fmt.Sprintf("exec-01%024d", n) }

// grow copies one finished execution until there are n, each a minute older than the next, one in
// twenty failed.
func grow(path, model string, have, n int) error {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)&_pragma=cache_size(-400000)&_pragma=busy_timeout(5000)")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var base int64
	if err := tx.QueryRow(`SELECT value FROM counter WHERE name = 'event'`).Scan(&base); err != nil {
		return err
	}
	copies := func(table, key string, own map[string]string) error {
		rows, err := tx.Query(`SELECT name FROM pragma_table_info(?)`, table)
		if err != nil {
			return err
		}
		defer rows.Close()
		var names, values []string
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				return err
			}
			names = append(names, name)
			if v, ok := own[name]; ok {
				values = append(values, v)
			} else {
				values = append(values, "model."+name)
			}
		}
		_, err = tx.Exec("WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2) "+
			"INSERT INTO "+table+" ("+strings.Join(names, ", ")+") SELECT "+strings.Join(values, ", ")+
			" FROM n, "+table+" AS model WHERE model."+key+" = ?3", have, n, model)
		return err
	}
	const id, state = "printf('exec-01%024d', i)", "CASE WHEN i % 20 = 0 THEN 'failed' ELSE 'success' END"
	seq := fmt.Sprintf("%d + i", base-int64(have)+1)
	own := map[string]string{"id": id, "event_seq": seq, "admit_no": seq, "status": state}
	for _, at := range []string{"created_at", "scheduled_at", "started_at", "finished_at"} {
		own[at] = "model." + at + " - (10000000 - i) * 60000000"
	}
	if err := errors.Join(
		copies("execution", "id", own),
		copies("execution_text", "execution_id", map[string]string{"execution_id": id}),
		copies("attempt", "execution_id", map[string]string{"execution_id": id, "status": state}),
	); err != nil {
		return err
	}
	if _, err := tx.Exec(`UPDATE counter SET value = value + ? WHERE name = 'event'`, n-have); err != nil {
		return err
	}
	if _, err := tx.Exec(`UPDATE counter SET value = value + ? WHERE name = 'success'`, n-have); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	_, err = db.Exec(`PRAGMA wal_checkpoint(TRUNCATE)`)
	return err
}

// logs measures a jump into a very long log and a search through it, while the execution is
// running.
func (b *bench) logs() error {
	s, err := b.agented()
	if err != nil {
		return err
	}
	defer s.Close()
	n := b.logLines
	id, err := s.run(b.self, "emit", "-n", strconv.Itoa(n), "-size", "60", "-hold", "10m")
	if err != nil {
		return err
	}
	page := func(after int) (float64, int64, error) {
		var got struct {
			Lines []struct {
				Seq int64 `json:"seq"`
			} `json:"lines"`
			Next int64 `json:"next_after"`
		}
		began := time.Now()
		err := s.call("GET", fmt.Sprintf("/api/v1/executions/%s/log?limit=50&after=%d", id, after), nil, &got)
		return float64(time.Since(began).Microseconds()) / 1000, got.Next, err
	}
	for began := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		if _, next, err := page(n - 1); err != nil {
			return err
		} else if next >= int64(n) {
			break
		}
		if time.Since(began) > 5*time.Minute {
			return errors.New("the long log was not written within five minutes")
		}
	}
	var jump []float64
	for i := range 20 {
		ms, _, err := page(n/10*9 - i*1000)
		if err != nil {
			return err
		}
		jump = append(jump, ms)
	}
	b.add("log.jump", us, quantile(jump, .5))
	b.add("log.jump99", us, quantile(jump, 1))
	// An expression without a match, so that the whole log is searched.
	for _, q := range []struct{ key, query string }{
		{"log.regex", url.QueryEscape(`error[0-9]+: .*failed`)}, {"log.regexhard", url.QueryEscape(`[0-9]+z[0-9]+y`)},
	} {
		for range b.rounds {
			began, after := time.Now(), int64(0)
			for {
				var got struct {
					Next int64 `json:"next_after"`
					Done bool  `json:"done"`
					Hits []any `json:"hits"`
				}
				if err := s.call("GET", fmt.Sprintf("/api/v1/executions/%s/search?regex=true&case=true&q=%s&after=%d", id, q.query, after), nil, &got); err != nil {
					return err
				}
				after = got.Next
				if got.Done || time.Since(began) > 20*time.Second {
					break
				}
			}
			// Relative to the printed bytes; the log is larger by its record headers.
			rate := float64(after) * 60 / 1e6 / time.Since(began).Seconds()
			b.add(q.key, us, rate)
			b.note("%s: %.0f MB/s", q.key, rate)
		}
	}
	b.note("jump: %.2f ms", quantile(jump, .5))
	return nil
}
