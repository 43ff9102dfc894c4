package broker_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented/internal/broker"
)

// BenchmarkBroker_added_time reports the time to the first byte of an answer, with and without a
// broker between the CLI and the API.
func BenchmarkBroker_added_time(b *testing.B) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, `data: {"message":{"model":"claude-a","usage":{"input_tokens":10,"output_tokens":1}}}`+"\n\n")
	}))
	defer api.Close()
	through := start(b, one(broker.Anthropic, "", api.URL))
	prompt := strings.Repeat("x", 100<<10)
	call := func(url string) time.Duration {
		req, err := http.NewRequest(http.MethodPost, url+"/v1/messages", strings.NewReader(prompt))
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("X-Api-Key", placeholder)
		began := time.Now()
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		defer res.Body.Close()
		if _, err := res.Body.Read(make([]byte, 1)); err != nil {
			b.Fatal(err)
		}
		took := time.Since(began)
		_, _ = io.Copy(io.Discard, res.Body)
		return took
	}
	var direct, brokered []time.Duration
	for b.Loop() {
		direct = append(direct, call(api.URL))
		brokered = append(brokered, call(through.url))
	}
	slices.Sort(direct)
	slices.Sort(brokered)
	for name, at := range map[string]float64{"p50": 0.5, "p99": 0.99} {
		i := int(at * float64(len(direct)-1))
		b.ReportMetric(float64((brokered[i] - direct[i]).Microseconds()), name+"-µs-added")
		b.ReportMetric(float64(brokered[i].Microseconds()), name+"-µs-brokered")
	}
}
