package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/agented/agented"
)

func newPublications() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "agented_publications_total", Help: "Publications that got their final status, by kind and status.",
	}, []string{"kind", "status"})
}

// Published records a publication that got its final status. It implements publish.Options.Observed.
func (m *Metrics) Published(kind agented.PublicationKind, status agented.PublicationStatus) {
	m.publications.WithLabelValues(string(kind), string(status)).Inc()
}

// openPublications reads the number of open publications at each scrape.
type openPublications struct {
	s    Sources
	open *prometheus.Desc
}

func newOpenPublications(s Sources) *openPublications {
	return &openPublications{s, prometheus.NewDesc("agented_publications_open", "Publications that are pending or held, by kind and status.", []string{"kind", "status"}, nil)}
}

func (c *openPublications) Describe(out chan<- *prometheus.Desc) { out <- c.open }

func (c *openPublications) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	list, err := c.s.DB.PublicationCounts(ctx)
	if err != nil {
		c.s.Log.Warn("count publications", "err", err)
		return
	}
	for _, n := range list {
		out <- prometheus.MustNewConstMetric(c.open, prometheus.GaugeValue, float64(n.Count), string(n.Kind), string(n.Status))
	}
}
