package hub

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/agented/agented"
)

func TestAppendJSONString(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.OneOf(
			rapid.SliceOf(rapid.Byte()),
			rapid.Map(rapid.String(), func(s string) []byte { return []byte(s) }),
		).Draw(t, "in")
		out := AppendJSONString(nil, in)
		if bytes.ContainsAny(out, "\n\r") {
			t.Fatalf("%q has a line break", out)
		}
		var back string
		if err := json.Unmarshal(out, &back); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		// Ranging over a string gives U+FFFD for each byte that is not UTF-8.
		if want := string([]rune(string(in))); back != want {
			t.Fatalf("%q came back as %q, want %q", in, back, want)
		}
		if again := AppendJSONString(nil, string(in)); !bytes.Equal(again, out) {
			t.Fatalf("as a string it is %q", again)
		}
	})
}

func TestAppendTime(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("", 5400)
	var c clock
	for _, at := range []time.Time{
		time.Date(2026, 11, 23, 1, 2, 3, 0, zone),
		time.Date(2026, 11, 23, 1, 2, 3, 4_005_999, zone),
		time.Date(2026, 11, 23, 1, 2, 4, 999_999_999, time.UTC),
		time.Unix(0, 0), time.Unix(0, 1000), time.Unix(-1, 5000),
	} {
		want := at.UTC().Format(`"2006-01-02T15:04:05.000000Z"`)
		if got := string(c.append(nil, at)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got := string(AppendTime(nil, at)); got != want {
			t.Errorf("AppendTime: got %s, want %s", got, want)
		}
	}
}

func TestAppendLine(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 1, 2, 3, 4000, time.UTC)
	for _, c := range []struct {
		line agented.LogLine
		want string
	}{
		{
			agented.LogLine{Seq: 7, At: at, Attempt: 2, Stream: agented.Stderr, Content: []byte("a\tb")},
			`{"seq":7,"attempt":2,"timestamp":"2026-11-23T01:02:03.000004Z","stream":"stderr","content":"a\tb"}`,
		},
		{
			agented.LogLine{Seq: 8, At: at, Attempt: 2, Stream: agented.Stdout, Part: agented.PartLast, NoEOL: true, Content: []byte("\x1b[1m\xff\u2028")},
			`{"seq":8,"attempt":2,"timestamp":"2026-11-23T01:02:03.000004Z","stream":"stdout","content":"\u001b[1m` + "\uFFFD\u2028" + `","part":"last","no_eol":true}`,
		},
	} {
		want := "id: " + strconv.FormatInt(int64(c.line.Seq), 10) + "\nevent: log\ndata: " + c.want + "\n\n"
		if got := string(new(clock).frame(nil, &c.line)); got != want {
			t.Errorf("got\n%q, want\n%q", got, want)
		}
		if got := string(AppendLine(nil, &c.line)); got != c.want {
			t.Errorf("AppendLine: got %q", got)
		}
	}
}

func TestBehind(t *testing.T) {
	t.Parallel()
	var frames []byte
	var c clock
	seqs := []int64{5, 6, 9, 10, 100}
	for _, n := range seqs {
		frames = c.frame(frames, &agented.LogLine{Seq: agented.Seq(n), At: time.Unix(0, 0), Stream: agented.Stdout, Content: []byte("\n\nid: 3\n\n")})
	}
	for after := range int64(102) {
		want := 0
		for _, n := range seqs {
			if n > after {
				want++
			}
		}
		rest := behind(frames, after)
		if got := strings.Count(string(rest), "event: log\n"); got != want || !bytes.HasSuffix(frames, rest) {
			t.Errorf("behind %d: %d frames, want %d", after, got, want)
		}
	}
}

func FuzzJSONString(f *testing.F) {
	f.Add([]byte("a\r\n\x00\xff\xf0\x9f\x98\x80\xe2\x80\xa8\xed\xa0\x80"))
	f.Fuzz(func(t *testing.T, in []byte) {
		out := AppendJSONString(nil, in)
		var back string
		if err := json.Unmarshal(out, &back); err != nil || back != string([]rune(string(in))) || bytes.ContainsAny(out, "\n\r") {
			t.Fatalf("%q became %q, which reads %q: %v", in, out, back, err)
		}
	})
}
