//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// row is a row of the table.
type row struct {
	what   string
	figure string
	key    string
	digits int
	reach  string
	ok     func(m map[string]float64) bool // nil if there is no target
}

// Targets of the table.
func atLeast(n float64) func(map[string]float64) bool {
	return func(m map[string]float64) bool { return m[us] >= n }
}

func atMost(n float64) func(map[string]float64) bool {
	return func(m map[string]float64) bool { return m[us] <= n }
}

// times requires factor times the figure of a peer, if it was measured.
func times(factor float64, peer string) func(map[string]float64) bool {
	return func(m map[string]float64) bool { v, ok := m[peer]; return !ok || m[us] >= factor*v }
}

func below(peer string) func(map[string]float64) bool {
	return func(m map[string]float64) bool { v, ok := m[peer]; return !ok || m[us] <= v }
}

func all(f ...func(map[string]float64) bool) func(map[string]float64) bool {
	return func(m map[string]float64) bool {
		for _, ok := range f {
			if !ok(m) {
				return false
			}
		}
		return true
	}
}

func (b *bench) rows() []row {
	var out []row
	for _, n := range b.crowds {
		at := fmt.Sprintf("fanout.%d.", n)
		what := fmt.Sprintf("20 lines/s to %s readers of one execution", thousands(float64(n)))
		out = append(out,
			row{what, "deliveries per CPU-second", at + "cpu", 0, "≥ nchan, ≥ 4 × gevent", all(times(1, nchan), times(4, gevent))},
			row{what, "of bare writes in a loop, %", at + "bare", 0, "", nil},
			row{what, "memory per idle reader, KiB", at + "idle", 1, "≤ 4", atMost(4)},
			row{what, "printed to read, p99, ms", at + "p99", 1, "≤ nchan", below(nchan)},
			row{what, "the same, p50, ms", at + "p50", 1, "", nil},
			row{what, "deliveries/s", at + "rate", 0, "", nil},
			row{what, "lines missing or duplicated", at + "lost", 0, "0", atMost(0)},
		)
	}
	n := thousands(float64(b.spreadReaders))
	one := fmt.Sprintf("a line/s to %s readers of one execution", n)
	many := fmt.Sprintf("the same over %d executions, 20 readers each", b.spreadReaders/20)
	return append(out,
		row{one, "deliveries per CPU-second", "spread.one.cpu", 0, "", nil},
		row{many, "deliveries per CPU-second", "spread.many.cpu", 0, "≥ 80 % of one", func(m map[string]float64) bool {
			return m[us] >= 0.8*median(b.results["spread.one.cpu"][us])
		}},
		row{many, "printed to read, p99, ms", "spread.many.p99", 1, "", nil},
		row{"200,000 lines at once, 100 readers", "lines missing or duplicated", "burst.lost", 0, "0", atMost(0)},
		row{"200,000 lines at once, 100 readers", "lines/s to disk", "burst.rate", 0, "≥ 100,000", atLeast(100_000)},
		row{"200,000 lines at once, 100 readers", "memory on top, MiB", "burst.memory", 1, "flat (≤ 32)", atMost(32)},
		row{fmt.Sprintf("%d readers join at line 1 of %s lines", b.catchReaders, thousands(float64(b.catchLines))), "MB/s", "catchup.rate", 0, "", nil},
		row{"the same", "MB per CPU-second", "catchup.cpu", 0, "", nil},
		row{"the same", "memory per reader, KiB", "catchup.memory", 1, "≤ 64", atMost(64)},
		row{"webhooks: signed, a quarter repeated, on disk, 32 clients", "requests/s", "intake.rate", 0, "≥ 5 × gevent", times(5, gevent)},
		row{"the same", "p99, ms", "intake.p99", 1, "≤ gevent", below(gevent)},
		row{"the same", "p50, ms", "intake.p50", 1, "", nil},
		row{"the same", "requests per CPU-second", "intake.cpu", 0, "", nil},
		row{"executions of `true`, 8 at a time", "executions/s", "run.rate", 0, "≥ 3 × gevent", times(3, gevent)},
		row{"one execution", "request to the process's first words, p50, ms", "run.first", 1, "≤ 15", atMost(15)},
		row{"one execution", "the same, p99, ms", "run.first99", 1, "", nil},
		row{fmt.Sprintf("%d executions at once, a line a second each", b.atOnce[len(b.atOnce)-1]), "server, MiB", "running.server", 1, "≤ 80", atMost(80)},
		row{"the same", "shim, MiB each", "running.shim", 2, "≤ 3", atMost(3)},
		row{"the same", "server, % of a core", "running.cpu", 1, "≤ 5", atMost(5)},
		row{"the same", "all shims together, % of a core", "running.shimcpu", 1, "", nil},
		row{"the same", "kill -9 to ready, ms", "start.adopt", 0, "≤ 500", atMost(500)},
		row{"the same", "kill -9 to the last one adopted, ms", "start.adopted", 0, "", nil},
		row{fmt.Sprintf("%s executions in history", thousands(float64(b.histories[len(b.histories)-1]))), "list, p99, ms", "history.list", 1, "≤ 20", atMost(20)},
		row{"the same", "one execution, p99, ms", "history.show", 1, "≤ 20", atMost(20)},
		row{"the same", "kill -9 to ready, ms", "start.history", 0, "≤ 200", atMost(200)},
		row{"at rest", "RSS, MiB", "rest.rss", 1, "≤ 40", atMost(40)},
		row{"at rest", "CPU, ms a minute", "rest.cpu", 0, "~ 0 (≤ 60)", atMost(60)},
		row{"at rest", "wake-ups a minute", "rest.wake", 0, "", nil},
		row{fmt.Sprintf("a log of %s lines", thousands(float64(b.logLines))), fmt.Sprintf("line %s, ms", thousands(float64(b.logLines)*.9)), "log.jump", 1, "≤ 30", atMost(30)},
		row{"the same", "regex search, MB/s", "log.regex", 0, "≥ 500", atLeast(500)},
		row{"the same", "regex without a word in it, MB/s", "log.regexhard", 0, "", nil},
		row{"the program", "size, MB", "size.binary", 1, "≤ 35", atMost(35)},
		row{"first page of the interface", "KB, compressed", "size.page", 0, "≤ 150", atMost(150)},
	)
}

// table formats the results as Markdown.
func (b *bench) table() string {
	var t strings.Builder
	peers := []string{nchan, gevent}
	fmt.Fprintf(&t, "| what | figure | %s | %s | %s | reach | |\n|---|---|--:|--:|--:|---|---|\n", us, nchan, gevent)
	for _, r := range b.rows() {
		got := b.results[r.key]
		m := map[string]float64{}
		for who, samples := range got {
			m[who] = median(samples)
		}
		mine, measured := m[us]
		cell := func(who string) string {
			v, ok := m[who]
			if !ok {
				return ""
			}
			text := number(v, r.digits)
			if who != us && v != 0 && measured {
				text += fmt.Sprintf(" (× %s)", ratio(mine/v))
			}
			return text
		}
		verdict := ""
		switch {
		case !measured:
			verdict = "not measured"
		case r.ok != nil && r.ok(m):
			verdict = "yes"
		case r.ok != nil:
			verdict = "**no**"
		}
		for _, p := range peers {
			if _, there := m[p]; !there && measured && strings.Contains(r.reach, short(p)) {
				verdict = "not compared: no figure of " + short(p)
			}
		}
		fmt.Fprintf(&t, "| %s | %s | %s | %s | %s | %s | %s |\n", r.what, r.figure, cell(us), cell(nchan), cell(gevent), r.reach, verdict)
	}
	t.WriteString("\n× is Agented's figure divided by the peer's. Figures are medians of " + fmt.Sprint(b.rounds) + " runs that took turns.\n")
	for _, name := range sortedKeys(b.missing) {
		fmt.Fprintf(&t, "\nMissing: %s: %s.\n", name, b.missing[name])
	}
	for _, text := range b.troubles {
		fmt.Fprintf(&t, "\nTrouble: %s.\n", text)
	}
	for _, m := range b.machines {
		fmt.Fprintf(&t, "\nMeasured on %s.\n", m)
	}
	return t.String()
}

func short(peer string) string {
	if peer == nchan {
		return "nchan"
	}
	return "gevent"
}

// machine describes the machine.
func (b *bench) machine() string {
	cpu := "unknown CPU"
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			cpu = strings.TrimSpace(strings.TrimLeft(name, "\t :"))
			break
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	version, _ := exec.Command(b.binary, "version").Output()
	return fmt.Sprintf("%s: %s, %d cores, %.0f GiB, Linux %s; load average at the start %s, at the end %s; %s",
		b.began.Format("2006-01-02"), cpu, runtime.NumCPU(), field("/proc/meminfo", "MemTotal")/(1<<20), strings.TrimSpace(string(kernel)),
		b.loadBefore, loadAverage(), strings.TrimSpace(strings.Split(string(version), "\n")[0]))
}

func loadAverage() string {
	b, _ := os.ReadFile("/proc/loadavg")
	if f := strings.Fields(string(b)); len(f) > 0 {
		return f[0]
	}
	return "unknown"
}

// read adds the results of an earlier run.
func (b *bench) read(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var had struct {
		Machine  string
		Rounds   int
		Results  map[string]map[string][]float64
		Series   map[string]map[string][][2]float64
		Missing  map[string]string
		Troubles []string
	}
	if err := json.Unmarshal(text, &had); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for key, of := range had.Results {
		for who, samples := range of {
			for _, v := range samples {
				b.add(key, who, v)
			}
		}
	}
	for key, of := range had.Series {
		for who, points := range of {
			for _, p := range points {
				b.point(key, who, p[0], p[1])
			}
		}
	}
	b.rounds = max(b.rounds, had.Rounds)
	b.troubles = append(b.troubles, had.Troubles...)
	maps.Copy(b.missing, had.Missing)
	b.machines = append(b.machines, had.Machine)
	return nil
}

// write writes the results and the plots.
func (b *bench) write() error {
	out, err := json.MarshalIndent(map[string]any{
		"began": b.began, "took_seconds": math.Round(time.Since(b.began).Seconds()), "machine": b.machine(), "rounds": b.rounds,
		"results": b.results, "series": b.series, "missing": b.missing, "troubles": b.troubles,
	}, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(b.resultsFile, append(out, '\n'), 0o644); err != nil {
		return err
	}
	return b.drawAll()
}

// drawAll writes the plots.
func (b *bench) drawAll() error {
	if b.images == "" {
		return nil
	}
	if err := os.MkdirAll(b.images, 0o755); err != nil {
		return err
	}
	for _, p := range plots {
		svg := p.draw(b.series[p.key])
		if svg == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(b.images, p.file), []byte(svg), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// median returns the median; for an even number of values it is the mean of the two in the
// middle.
func median(v []float64) float64 {
	if n := len(v); n > 0 && n%2 == 0 {
		v = slices.Clone(v)
		slices.Sort(v)
		return (v[n/2-1] + v[n/2]) / 2
	}
	return quantile(v, .5)
}

// quantile returns the nearest value below the quantile; it returns 0 without values.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Clone(v)
	slices.Sort(v)
	return v[int(q*float64(len(v)-1))]
}

func number(v float64, digits int) string {
	if digits == 0 {
		return thousands(math.Round(v))
	}
	return fmt.Sprintf("%.*f", digits, v)
}

func ratio(v float64) string {
	if v >= 10 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2g", v)
}

// thousands formats a whole number with commas.
func thousands(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func sortedKeys(m map[string]string) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
