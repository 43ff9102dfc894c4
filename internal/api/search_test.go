package api_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

// printed creates an execution with these lines in its log.
func (g *rig) printed(records ...runlog.Record) agented.ExecutionID {
	g.t.Helper()
	spec := agented.Spec{Backend: agented.BackendCommand, Command: []string{"true"}}.WithDefaults()
	e, _, err := g.work.Fire(g.t.Context(), dispatch.Firing{Spec: &spec, Name: "printed", Source: agented.SourceManual})
	if err != nil {
		g.t.Fatal(err)
	}
	if err := os.MkdirAll(g.layout.Execution(e.ID), 0o700); err != nil {
		g.t.Fatal(err)
	}
	w, err := runlog.OpenWriter(g.layout.Execution(e.ID), time.Now())
	if err != nil {
		g.t.Fatal(err)
	}
	defer w.Close()
	for i := range records {
		r := &records[i]
		if r.Stream == "" {
			r.Stream = agented.Stdout
		}
		r.Attempt, r.At = 1, time.Now()
	}
	for len(records) > 0 {
		n := min(len(records), 1000)
		if err := w.Append(records[:n]); err != nil {
			g.t.Fatal(err)
		}
		records = records[n:]
	}
	return e.ID
}

func logged(text string) runlog.Record {
	return runlog.Record{LogLine: agented.LogLine{Content: []byte(text)}}
}

func (g *rig) find(id agented.ExecutionID, query string) api.LogHits {
	g.t.Helper()
	var out api.LogHits
	g.do(agented.RoleViewer, "GET", "/api/v1/executions/"+string(id)+"/search?"+query, "").want(200).json(&out)
	return out
}

func seqs(h api.LogHits) string {
	var out []string
	for _, hit := range h.Hits {
		out = append(out, fmt.Sprint(hit.Seq))
	}
	return strings.Join(out, " ")
}

func TestSearch(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	id := g.printed(logged("alpha"), logged("Beta 1"), logged("gamma beta"), logged("BETA 22"), logged("Grüße ÄÖ"), logged("a.b"), logged("axb"))
	for query, want := range map[string]string{
		"q=beta":                     "2 3 4",
		"q=beta&case=true":           "3",
		"q=BETA":                     "2 3 4",
		"q=beta&after=2":             "3 4",
		"q=" + url.QueryEscape("äö"): "5",
		"q=" + url.QueryEscape("äö") + "&case=true": "",
		"q=a.b":            "6",
		"q=a.b&regex=true": "3 6 7",
		"q=" + url.QueryEscape(`^beta \d+$`) + "&regex=true":           "2 4",
		"q=" + url.QueryEscape(`^beta \d+$`) + "&regex=true&case=true": "",
		"q=nothing": "",
	} {
		got := g.find(id, query)
		if seqs(got) != want || !got.Done || got.LastSeq != 7 {
			t.Errorf("%s: found %q, want %q; done %v, last %d", query, seqs(got), want, got.Done, got.LastSeq)
		}
	}
	for _, bad := range []string{"q=", "", "q=(&regex=true", "q=x&limit=0", "q=x&after=-1", "q=x&regex=perhaps", "q=" + strings.Repeat("x", 1001)} {
		a := g.do(agented.RoleViewer, "GET", "/api/v1/executions/"+string(id)+"/search?"+bad, "")
		if a.status != 422 && a.status != 400 {
			t.Errorf("%q: %d %s", bad, a.status, a.body)
		}
	}
	g.do(agented.RoleViewer, "GET", "/api/v1/executions/exec-01jdc4q7zv8m3k2n5p6r7s8t9w/search?q=x", "").problem(404)
}

func TestSearch_continues(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	var lines []runlog.Record
	for i := range 5000 {
		lines = append(lines, logged(fmt.Sprintf("line %d %s", i+1, map[bool]string{true: "hit"}[i%7 == 0])))
	}
	id := g.printed(lines...)
	var found []agented.Seq
	after := agented.Seq(0)
	for range 100 {
		h := g.find(id, fmt.Sprintf("q=hit&limit=50&after=%d", after))
		for _, hit := range h.Hits {
			found = append(found, hit.Seq)
		}
		if h.Done {
			break
		}
		if h.NextAfter <= after {
			t.Fatalf("no progress behind %d", after)
		}
		after = h.NextAfter
	}
	var want []agented.Seq
	for i := 1; i <= 5000; i += 7 {
		want = append(want, agented.Seq(i))
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Error(diff)
	}
}

func TestSearch_split_line(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	part := func(text string, p agented.Part) runlog.Record {
		r := logged(text)
		r.Part = p
		return r
	}
	other := logged("need")
	other.Stream = agented.Stderr
	id := g.printed(logged("before"), part("a nee", agented.PartFirst), other, part("dle in ", agented.PartMiddle), part("parts", agented.PartLast), part("open need", agented.PartFirst))
	if got := g.find(id, "q=needle"); seqs(got) != "2" || got.Hits[0].Excerpt != "a needle in parts" {
		t.Errorf("%+v", got)
	}
	if got := g.find(id, "q=need"); seqs(got) != "2 3 6" {
		t.Errorf("found %s", seqs(got))
	}
}

func TestSearch_colours_and_secrets(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	id := g.printed(logged("\x1b[31mer\x1b[1mror\x1b[0m here"), logged("\x1b]8;;https://x.example\x1b\\link\x1b]8;;\x1b\\ed"), logged("token hunter2hunter2 shown"))
	if got := g.find(id, "q="+url.QueryEscape("error here")); seqs(got) != "1" || got.Hits[0].Excerpt != "error here" {
		t.Errorf("%+v", got)
	}
	if got := g.find(id, "q=linked"); seqs(got) != "2" {
		t.Errorf("%+v", got)
	}
	g.masker.Store(redact.New([]string{"hunter2hunter2"}))
	if got := g.find(id, "q=hunter2"); seqs(got) != "" {
		t.Error("a secret was found")
	}
	got := g.find(id, "q=token")
	if b, _ := json.Marshal(got); seqs(got) != "3" || strings.Contains(string(b), "hunter2") {
		t.Errorf("%s", b)
	}
}

func TestSearch_empty_log(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	spec := agented.Spec{Backend: agented.BackendCommand, Command: []string{"true"}}.WithDefaults()
	e, _, err := g.work.Fire(t.Context(), dispatch.Firing{Spec: &spec, Name: "quiet", Source: agented.SourceManual})
	if err != nil {
		t.Fatal(err)
	}
	if got := g.find(e.ID, "q=x"); !got.Done || len(got.Hits) != 0 {
		t.Errorf("%+v", got)
	}
}

// From any line, forwards and backwards, every match is reached once and in order.
func TestSearch_both_directions(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	var records []runlog.Record
	var want []string
	const lines = 12_000
	for n := 1; n <= lines; n++ {
		text := "other"
		if n%7 == 3 && (n < 500 || n > 11_000) || n == 6000 {
			text = "a match"
			want = append(want, fmt.Sprint(n))
		}
		records = append(records, logged(text))
	}
	id := g.printed(records...)
	for _, from := range []int{1, 2, 3, 4, 250, 5999, 6000, 6001, lines, lines + 1} {
		var before, after []string
		for at := agented.Seq(from); ; {
			h := g.find(id, fmt.Sprintf("q=match&limit=50&before=%d", at))
			if len(h.Hits) > 50 {
				t.Fatalf("%d hits", len(h.Hits))
			}
			before = append(strings.Fields(seqs(h)), before...)
			if at = h.NextBefore; h.Done || at <= 1 {
				break
			}
		}
		for at := agented.Seq(from - 1); ; {
			h := g.find(id, fmt.Sprintf("q=match&limit=50&after=%d", at))
			after = append(after, strings.Fields(seqs(h))...)
			if at = h.NextAfter; h.Done {
				break
			}
		}
		if got := append(before, after...); !cmp.Equal(got, want) {
			t.Errorf("from line %d: %s", from, cmp.Diff(want, got))
		}
		count := func(query string) (n int64) {
			for at := agented.Seq(0); ; {
				h := g.find(id, fmt.Sprintf("q=match&count=true&after=%d%s", at, query))
				n += h.Count
				if at = h.NextAfter; h.Done {
					if len(h.Hits) > 0 {
						t.Error("a count has hits")
					}
					return n
				}
			}
		}
		if n := count(fmt.Sprintf("&before=%d", from)); n != int64(len(before)) {
			t.Errorf("%d before line %d, want %d", n, from, len(before))
		}
		if n := count(""); n != int64(len(want)) {
			t.Errorf("%d in all, want %d", n, len(want))
		}
	}
	g.do(agented.RoleViewer, "GET", "/api/v1/executions/"+string(id)+"/search?q=x&before=5&after=3", "").want(422)
}
