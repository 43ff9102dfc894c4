package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/agented/agented"
)

// makeBudgetMetrics creates the metrics of pauses and budgets.
func (m *Metrics) makeBudgetMetrics() {
	m.pauses = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "agented_pauses_total", Help: "Paused executions, by question.",
	}, []string{"question"})
	m.budgets = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "agented_budgets_told_total", Help: "Budgets that reached their warning threshold or their limit, once per period each.",
	}, []string{"budget", "level"})
	for _, q := range []agented.Question{agented.QuestionNone, agented.QuestionCeiling, agented.QuestionBudget} {
		m.pauses.WithLabelValues(string(q))
	}
	m.registry.MustRegister(m.pauses, m.budgets)
}

// Paused records a pause. It implements dispatch.Observer.
func (m *Metrics) Paused(q agented.Question) { m.pauses.WithLabelValues(string(q)).Inc() }

// BudgetNotified records that a budget reached its warning threshold or its limit.
// It implements dispatch.Observer.
func (m *Metrics) BudgetNotified(b agented.Budget, reached bool) {
	level := "near"
	if reached {
		level = "reached"
	}
	m.budgets.WithLabelValues(b.Name, level).Inc()
}

// watchBudgets adds the metrics of budgets and pauses that are read at each
// scrape.
func (m *Metrics) watchBudgets(s Sources) {
	m.registry.MustRegister(&moneyCollector{
		s:      s,
		spent:  prometheus.NewDesc("agented_budget_spent_usd", "Known spending of a budget in its current period.", []string{"budget"}, nil),
		limit:  prometheus.NewDesc("agented_budget_limit_usd", "Limit of a budget.", []string{"budget"}, nil),
		paused: prometheus.NewDesc("agented_executions_paused", "Executions that are currently paused.", nil, nil),
	})
}

type moneyCollector struct {
	s                    Sources
	spent, limit, paused *prometheus.Desc
}

func (c *moneyCollector) Describe(out chan<- *prometheus.Desc) {
	out <- c.spent
	out <- c.limit
	out <- c.paused
}

func (c *moneyCollector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	list, err := c.s.DB.Budgets(ctx, c.s.Now())
	if err != nil {
		return // agented_store_up reports the failure
	}
	for _, b := range list {
		out <- prometheus.MustNewConstMetric(c.spent, prometheus.GaugeValue, b.Spent, b.Name)
		out <- prometheus.MustNewConstMetric(c.limit, prometheus.GaugeValue, b.Limit, b.Name)
	}
	if n, err := c.s.DB.PausedCount(ctx); err == nil {
		out <- prometheus.MustNewConstMetric(c.paused, prometheus.GaugeValue, float64(n))
	}
}
