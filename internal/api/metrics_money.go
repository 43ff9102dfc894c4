package api

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/agented/agented"
)

// makeMoney makes the figures of pauses and budgets.
func (m *Metrics) makeMoney() {
	m.pauses = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "agented_pauses_total", Help: "Executions paused, by what they asked.",
	}, []string{"question"})
	m.budgets = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "agented_budgets_told_total", Help: "Budgets that came near their limit or reached it, once a period each.",
	}, []string{"budget", "level"})
	for _, q := range []agented.Question{agented.QuestionNone, agented.QuestionCeiling, agented.QuestionBudget} {
		m.pauses.WithLabelValues(string(q))
	}
	m.registry.MustRegister(m.pauses, m.budgets)
}

// Paused notes a pause. It fits dispatch.Observer.
func (m *Metrics) Paused(q agented.Question) { m.pauses.WithLabelValues(string(q)).Inc() }

// BudgetTold notes that a budget came near its limit or reached it. It fits
// dispatch.Observer.
func (m *Metrics) BudgetTold(b agented.Budget, reached bool) {
	level := "near"
	if reached {
		level = "reached"
	}
	m.budgets.WithLabelValues(b.Name, level).Inc()
}

// watchMoney lets each scrape ask how budgets and pauses stand.
func (m *Metrics) watchMoney(s *Server) {
	m.registry.MustRegister(&moneyCollector{
		s:      s,
		spent:  prometheus.NewDesc("agented_budget_spent_usd", "Spent of a budget in its current period, as far as it is known.", []string{"budget"}, nil),
		limit:  prometheus.NewDesc("agented_budget_limit_usd", "Limit of a budget.", []string{"budget"}, nil),
		paused: prometheus.NewDesc("agented_executions_paused", "Running executions that stand still.", nil, nil),
	})
}

type moneyCollector struct {
	s                    *Server
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
	list, err := c.s.o.DB.Budgets(ctx, c.s.now())
	if err != nil {
		return // agented_store_up says so
	}
	for _, b := range list {
		out <- prometheus.MustNewConstMetric(c.spent, prometheus.GaugeValue, b.Spent, b.Name)
		out <- prometheus.MustNewConstMetric(c.limit, prometheus.GaugeValue, b.Limit, b.Name)
	}
	if n, err := c.s.o.DB.PausedCount(ctx); err == nil {
		out <- prometheus.MustNewConstMetric(c.paused, prometheus.GaugeValue, float64(n))
	}
}
