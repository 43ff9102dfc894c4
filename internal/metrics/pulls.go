package metrics

import "github.com/prometheus/client_golang/prometheus"

// pullCollector reads the state of fetching deliveries from GitHub.
type pullCollector struct {
	s                            Sources
	lag, success, pulled, failed *prometheus.Desc
}

// watchPulls adds the metrics of deliveries that are fetched from GitHub.
func (m *Metrics) watchPulls(s Sources) {
	of := []string{"source"}
	m.registry.MustRegister(&pullCollector{
		s:       s,
		lag:     prometheus.NewDesc("agented_github_pull_lag_seconds", "Age of the oldest delivery in GitHub's list that is not stored yet; 0 if there is none.", of, nil),
		success: prometheus.NewDesc("agented_github_pull_last_success_timestamp_seconds", "When all deliveries in GitHub's list were last stored; 0 means never.", of, nil),
		pulled:  prometheus.NewDesc("agented_github_pulled_deliveries_total", "Deliveries that were fetched from GitHub, by result: stored, or lost because GitHub no longer had the body.", []string{"source", "result"}, nil),
		failed:  prometheus.NewDesc("agented_github_pull_trouble", "1 if deliveries could not be fetched from GitHub at the last try.", of, nil),
	})
}

func (c *pullCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.lag, c.success, c.pulled, c.failed} {
		out <- d
	}
}

func (c *pullCollector) Collect(out chan<- prometheus.Metric) {
	if c.s.Pulls == nil {
		return
	}
	for _, v := range c.s.Pulls() {
		lag, success, trouble := 0.0, 0.0, 0.0
		if !v.OldestWait.IsZero() {
			lag = max(c.s.Now().Sub(v.OldestWait).Seconds(), 0)
		}
		if !v.LastSuccess.IsZero() {
			success = float64(v.LastSuccess.Unix())
		}
		if v.Problem != "" {
			trouble = 1
		}
		out <- prometheus.MustNewConstMetric(c.lag, prometheus.GaugeValue, lag, v.Name)
		out <- prometheus.MustNewConstMetric(c.success, prometheus.GaugeValue, success, v.Name)
		out <- prometheus.MustNewConstMetric(c.failed, prometheus.GaugeValue, trouble, v.Name)
		out <- prometheus.MustNewConstMetric(c.pulled, prometheus.CounterValue, float64(v.Pulled), v.Name, "stored")
		out <- prometheus.MustNewConstMetric(c.pulled, prometheus.CounterValue, float64(v.Lost), v.Name, "lost")
	}
}
