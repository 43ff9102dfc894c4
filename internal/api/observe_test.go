package api_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/metrics"
)

// deployed is the folder of the files for operators.
var deployed = filepath.Join("..", "..", "deploy")

// laterMetrics only exist after an event: without a backup there is no time of
// the last one.
var laterMetrics = []string{"agented_backup_last_success_timestamp_seconds"}

// exposed returns the series names of a server's /metrics.
func exposed(t *testing.T) map[string]bool {
	t.Helper()
	collected := metrics.New("1.2.3-test")
	g := start(t, settings{options: func(o *api.Options) { o.Metrics = collected }})
	collected.Claimed(time.Second)
	collected.AttemptEnded("claude", agented.StateFailed, time.Minute)
	collected.Ticked(agented.TickMissed, 0)
	g.do(agented.RoleViewer, "GET", "/api/v1/info", "").want(200) // counted from the first one
	names := map[string]bool{"up": true}
	for line := range strings.Lines(g.do(agented.RoleViewer, "GET", "/metrics", "").want(200).body) {
		if name := regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*`).FindString(line); name != "" {
			names[name] = true
		}
	}
	for _, name := range laterMetrics {
		names[name] = true
	}
	return names
}

// metricsIn returns the names of metrics in a PromQL expression: words that are
// not functions, keywords or labels, and not in quotes.
func metricsIn(expr string) []string {
	expr = regexp.MustCompile(`"[^"]*"`).ReplaceAllString(expr, `""`)
	expr = regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(expr, "")
	expr = regexp.MustCompile(`\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)`).ReplaceAllString(expr, " ")
	expr = regexp.MustCompile(`\[[^\]]*\]`).ReplaceAllString(expr, "")
	var out []string
	for _, m := range regexp.MustCompile(`\b([a-zA-Z_:][a-zA-Z0-9_:]*)\b(\s*\()?`).FindAllStringSubmatch(expr, -1) {
		if m[2] == "" && !slices.Contains([]string{"and", "or", "unless", "by", "bool", "offset"}, m[1]) {
			out = append(out, m[1])
		}
	}
	return out
}

func TestDashboard_metrics_exist(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(deployed, "grafana-dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var doc any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	var exprs []string
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, value := range v {
				if s, ok := value.(string); ok && key == "expr" {
					exprs = append(exprs, s)
				}
				walk(value)
			}
		case []any:
			for _, value := range v {
				walk(value)
			}
		}
	}
	walk(doc)
	checkExprs(t, exprs, 25)
}

func TestAlerts_metrics_exist(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(deployed, "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations", "observability.md"))
	if err != nil {
		t.Fatal(err)
	}
	var exprs []string
	for _, g := range doc.Groups {
		for _, r := range g.Rules {
			exprs = append(exprs, r.Expr)
			if !strings.Contains(string(page), "`"+r.Alert+"`") {
				t.Errorf("docs/operations/observability.md does not say what to do about %s", r.Alert)
			}
		}
	}
	checkExprs(t, exprs, 12)
}

func checkExprs(t *testing.T, exprs []string, least int) {
	t.Helper()
	if len(exprs) < least {
		t.Fatalf("%d queries, want %d at least", len(exprs), least)
	}
	there := exposed(t)
	for _, expr := range exprs {
		names := metricsIn(expr)
		if len(names) == 0 {
			t.Errorf("no metric in %s", expr)
		}
		for _, name := range names {
			if !there[name] {
				t.Errorf("%s is no metric of the server, in %s", name, expr)
			}
		}
	}
}

func TestMetricsIn(t *testing.T) {
	t.Parallel()
	got := metricsIn(`sum by (le, x) (rate(a_total{b="c_d"}[5m])) / on (instance) group_left (version) b_info and time() - c > 0.5`)
	if want := []string{"a_total", "b_info", "c"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestAlerts_promtool needs promtool in the PATH, or AGENTED_TEST_PROMTOOL;
// scripts/install-promtool.sh installs it.
func TestAlerts_promtool(t *testing.T) {
	t.Parallel()
	promtool := os.Getenv("AGENTED_TEST_PROMTOOL")
	if promtool == "" {
		var err error
		if promtool, err = exec.LookPath("promtool"); err != nil {
			t.Skip("promtool is not installed, so the alert rules are not tried: run scripts/install-promtool.sh")
		}
	}
	for _, args := range [][]string{
		{"check", "rules", filepath.Join(deployed, "alerts.yml")},
		{"test", "rules", filepath.Join(deployed, "test", "alerts_test.yml")},
	} {
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args[:2], " "), err, out)
		}
	}
	collected := metrics.New("1.2.3-test")
	g := start(t, settings{options: func(o *api.Options) { o.Metrics = collected }})
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(g.do(agented.RoleViewer, "GET", "/metrics", "").want(200).body)
	if out, err := cmd.CombinedOutput(); err != nil && strings.Contains(string(out), "agented_") {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}
