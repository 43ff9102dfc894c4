package broker

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/egress"
)

// Limits of the records.
const (
	maxLimitHeaders = 32
	maxLimitValue   = 128
	// maxLimitWait bounds a reset time that a provider sends.
	maxLimitWait = 60 * 24 * time.Hour
)

// Record is one line of the file in which a broker reports: the usage of an answer, or the limits
// that it came with.
type Record struct {
	At     time.Time         `json:"at"`
	Vendor string            `json:"vendor,omitempty"`
	Status int               `json:"status,omitempty"`
	Model  string            `json:"model,omitempty"`
	Usage  *agented.Usage    `json:"usage,omitempty"`
	Until  time.Time         `json:"until,omitzero"`   // when a refused call may be repeated, if the provider sent it
	Limits map[string]string `json:"limits,omitempty"` // the limit headers
	// Refused is an address that the proxy refused, with the count so far; those that are not listed
	// have no address.
	Refused *egress.Refusal `json:"refused,omitempty"`
}

// Limited reports whether the record is a call that the provider refused because of a limit.
func (r *Record) Limited() bool { return r.Status == http.StatusTooManyRequests }

// report appends records to a file. Errors are ignored: the CLI prints its usage too.
type report struct {
	mu   sync.Mutex // guards the following fields
	file string
	f    *os.File
	last map[string]string // limit headers of the last record
}

func newReport(file string) *report { return &report{file: file} }

// usage records the usage of an answer.
func (r *report) usage(vendor string, s *scanner) {
	u := s.total
	if !u.Known() {
		return
	}
	if u.InputTokens != nil && u.OutputTokens == nil {
		u.OutputTokens = new(int64)
	}
	r.add(Record{Vendor: vendor, Status: http.StatusOK, Model: s.model, Usage: &u})
}

// limits records the limit headers of an answer if it was refused, or if they have changed.
func (r *report) limits(vendor string, res *http.Response) {
	now := time.Now()
	headers := limitHeaders(res.Header)
	rec := Record{Vendor: vendor, Status: res.StatusCode, Limits: headers}
	if res.StatusCode == http.StatusTooManyRequests {
		rec.Until = resetTime(res.Header, now)
		r.add(rec)
		return
	}
	status := headers["anthropic-ratelimit-unified-status"]
	r.mu.Lock()
	changed := len(headers) > 0 && status != "" && status != r.last["anthropic-ratelimit-unified-status"]
	r.last = headers
	r.mu.Unlock()
	if changed {
		r.add(rec)
	}
}

// limitHeaders selects the headers about limits, with names in lower case.
func limitHeaders(h http.Header) map[string]string {
	var out map[string]string
	for name, values := range h {
		name = strings.ToLower(name)
		is := strings.HasPrefix(name, "anthropic-ratelimit-") || strings.HasPrefix(name, "x-ratelimit-") || strings.HasPrefix(name, "retry-after")
		if !is || len(values) == 0 || len(out) == maxLimitHeaders || len(values[0]) > maxLimitValue {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[name] = values[0]
	}
	return out
}

// resetTime returns when a refused call may be repeated, or zero if the headers do not contain it.
func resetTime(h http.Header, now time.Time) (until time.Time) {
	if strings.EqualFold(h.Get("Anthropic-Ratelimit-Unified-Status"), "rejected") {
		if epoch, err := strconv.ParseInt(h.Get("Anthropic-Ratelimit-Unified-Reset"), 10, 64); err == nil {
			until = time.Unix(epoch, 0)
		}
	}
	if value := h.Get("Retry-After"); until.IsZero() && value != "" {
		if seconds, err := strconv.ParseFloat(value, 64); err == nil && seconds >= 0 && seconds < maxLimitWait.Seconds() {
			until = now.Add(time.Duration(seconds * float64(time.Second)))
		} else if at, err := http.ParseTime(value); err == nil {
			until = at
		}
	}
	if until.Before(now) || until.After(now.Add(maxLimitWait)) {
		return time.Time{}
	}
	return until.UTC().Round(0)
}

// add appends a record in a single write, so that a reader finds whole lines only.
func (r *report) add(rec Record) {
	rec.At = time.Now().UTC().Round(0)
	b, err := json.Marshal(rec)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.f == nil {
		if r.f, err = os.OpenFile(r.file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
			r.f = nil
			return
		}
	}
	_, _ = r.f.Write(append(b, '\n'))
}

func (r *report) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.f != nil {
		r.f.Close()
		r.f = nil
	}
}

// ReadRecords reads the records of a file from a position, and returns the position after them. A
// missing file has none. Damaged lines are skipped.
func ReadRecords(file string, from int64) ([]Record, int64, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, from, nil
	}
	if err != nil {
		return nil, from, err
	}
	defer f.Close()
	const most = 4 << 20
	b, err := io.ReadAll(io.NewSectionReader(f, from, most))
	if err != nil {
		return nil, from, err
	}
	end := bytes.LastIndexByte(b, '\n') + 1
	if end == 0 && len(b) == most {
		end = len(b) // no broker writes such a line
	}
	var out []Record
	for line := range bytes.Lines(b[:end]) {
		var rec Record
		if json.Unmarshal(line, &rec) == nil {
			out = append(out, rec)
		}
	}
	return out, from + int64(end), nil
}
