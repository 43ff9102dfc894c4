//go:build linux

package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// bench is one run of the suite.
type bench struct {
	binary, self, tmp         string
	gunicorn                  string
	nginxProgram, nchanModule string
	resultsFile, images       string
	rounds, singles           int
	span, settle, rest        time.Duration
	crowds, steps, atOnce     []int
	histories                 []int
	spreadReaders             int
	catchReaders, catchLines  int
	logLines                  int
	missing                   map[string]string
	troubles                  []string
	machines                  []string // the machine of each run
	results                   map[string]map[string][]float64
	series                    map[string]map[string][][2]float64
	began                     time.Time
	loadBefore                string
	verbose                   bool
}

// thorough sets a run of about a quarter of an hour.
func (b *bench) thorough() {
	b.rounds, b.singles, b.span, b.settle, b.rest = 3, 60, 4*time.Second, 3*time.Second, 30*time.Second
	b.crowds, b.steps = []int{1000, 10_000}, []int{100, 5000, 15_000}
	b.atOnce, b.histories = []int{1, 10, 50, 200}, []int{1000, 10_000, 100_000, 1_000_000}
	b.spreadReaders, b.catchReaders, b.catchLines, b.logLines = 10_000, 1000, 1_000_000, 10_000_000
}

// quick sets a run of about a minute.
func (b *bench) quick() {
	b.rounds, b.singles, b.span, b.settle, b.rest = 1, 20, 2*time.Second, 3*time.Second, 5*time.Second
	b.crowds, b.steps = []int{1000}, nil
	b.atOnce, b.histories = []int{20}, []int{1000, 20_000}
	b.spreadReaders, b.catchReaders, b.catchLines, b.logLines = 1000, 200, 200_000, 1_000_000
}

func main() {
	var err error
	if len(os.Args) > 1 && os.Args[1] == "emit" {
		err = emit(os.Args[2:])
	} else if len(os.Args) == 4 && os.Args[1] == "bare" {
		err = serveBare(os.Args[2], os.Args[3])
	} else {
		err = run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	b := &bench{
		results: map[string]map[string][]float64{}, series: map[string]map[string][][2]float64{},
		began: time.Now(), loadBefore: loadAverage(),
	}
	quick := flag.Bool("quick", false, "take a minute instead of fifteen, with fewer readers and one run each")
	only := flag.String("only", "", "measure only these, separated by commas: "+strings.Join(names(b), " "))
	flag.StringVar(&b.binary, "bin", "bin/agented", "path of the built program")
	flag.StringVar(&b.resultsFile, "json", "bin/bench.json", "file for all figures")
	flag.StringVar(&b.images, "images", "", "folder for the plots; empty draws none")
	flag.BoolVar(&b.verbose, "v", false, "report progress on standard error")
	rounds := flag.Int("rounds", 0, "number of runs of each measurement; 0 uses the mode's default")
	readers := flag.Int("readers", 0, "measure only this number of readers")
	from := flag.String("from", "", "measure nothing: print the table and plots of these earlier results, separated by commas")
	noPeers := flag.Bool("alone", false, "do not measure the peers")
	flag.Parse()
	if *only != "" {
		for _, name := range strings.Split(*only, ",") {
			if !slices.Contains(names(b), name) {
				return fmt.Errorf("-only: there is no measurement %q; there are: %s", name, strings.Join(names(b), " "))
			}
		}
	}
	if *quick {
		b.quick()
	} else {
		b.thorough()
	}
	if *rounds > 0 {
		b.rounds = *rounds
	}
	if *readers > 0 {
		b.crowds, b.steps, b.spreadReaders = []int{*readers}, nil, *readers
	}
	b.missing = map[string]string{}
	if *from != "" {
		b.rounds = 0
		for _, path := range strings.Split(*from, ",") {
			if err := b.read(path); err != nil {
				return err
			}
		}
		fmt.Print(b.table())
		return b.drawAll()
	}
	if b.binary, err = filepath.Abs(b.binary); err != nil {
		return err
	}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if _, err := os.Stat(b.binary); err != nil {
		return fmt.Errorf("there is no program to measure (make build): %w", err)
	}
	if b.tmp, err = os.MkdirTemp("", "agented-bench-"); err != nil {
		return err
	}
	os.Chmod(b.tmp, 0o755)
	defer os.RemoveAll(b.tmp)
	raiseDescriptors()
	if *noPeers {
		b.missing[nchan], b.missing[gevent] = "excluded by -alone", "excluded by -alone"
	} else {
		b.findPeers()
	}
	for _, m := range b.measurements() {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), m.name) {
			continue
		}
		began := time.Now()
		if err := m.measure(); err != nil {
			b.trouble("%s: %v", m.name, err)
		}
		b.note("%s took %v", m.name, time.Since(began).Round(time.Second))
	}
	b.machines = []string{b.machine()}
	fmt.Print(b.table())
	return b.write()
}

type measurement struct {
	name    string
	measure func() error
}

func (b *bench) measurements() []measurement {
	return []measurement{
		{"sizes", b.sizes},
		{"rest", b.atRest},
		{"fanout", b.fanouts},
		{"spread", b.spread},
		{"ladder", b.ladder},
		{"burst", b.burst},
		{"catchup", b.catchUp},
		{"intake", b.intake},
		{"overhead", b.overhead},
		{"running", b.running},
		{"history", b.history},
		{"logs", b.logs},
	}
}

func names(b *bench) []string {
	var out []string
	for _, m := range b.measurements() {
		out = append(out, m.name)
	}
	return out
}

// who lists Agented and the available peers; they take turns.
func (b *bench) who(peers ...string) []string {
	out := []string{us}
	for _, p := range peers {
		if b.missing[p] == "" {
			out = append(out, p)
		}
	}
	return out
}

func (b *bench) add(key, who string, v float64) {
	if b.results[key] == nil {
		b.results[key] = map[string][]float64{}
	}
	b.results[key][who] = append(b.results[key][who], v)
}

// point adds a point to a plot.
func (b *bench) point(key, who string, x, y float64) {
	if b.series[key] == nil {
		b.series[key] = map[string][][2]float64{}
	}
	b.series[key][who] = append(b.series[key][who], [2]float64{x, y})
}

// trouble records a problem, which is printed below the table.
func (b *bench) trouble(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	b.troubles = append(b.troubles, text)
	fmt.Fprintln(os.Stderr, "bench: trouble:", text)
}

func (b *bench) note(format string, args ...any) {
	if b.verbose {
		fmt.Fprintf(os.Stderr, "%5.0fs "+format+"\n", append([]any{time.Since(b.began).Seconds()}, args...)...)
	}
}

// raiseDescriptors raises the limit of open files: each reader needs one, here and in the
// servers, which inherit the limit.
func raiseDescriptors() {
	l := syscall.Rlimit{Cur: 65536, Max: 65536}
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l) == nil {
		return
	}
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) == nil {
		l.Cur = l.Max
		syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
	}
}
