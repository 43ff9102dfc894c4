package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
)

func chaosCommand() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "chaos", Short: "Kill a server again and again under load, and count what was lost", Args: exactArgs(),
		GroupID: "server",
		Long: `Start a server of its own on this machine, in a scratch folder and on a free port
of 127.0.0.1, and mistreat it for a while: executions print numbered lines,
readers follow them, runs and webhooks are fired, and at random moments the
server is killed, frozen or restarted. Then count: which lines were lost, came
twice or out of order, what was acknowledged and did not run or ran twice, what
says that it is running and is not, which processes are left.

Your own server, its data and its settings are not touched. The exit code is 1
when a promise of docs/guarantees.md was broken. The same seed gives the same
order of torments; their moments are those of your machine.`,
		Example: `  agented chaos
  agented chaos --seconds 600 --executions 20 --json
  agented chaos --seconds 5 --sabotage     # it must notice`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f := cmd.Flags()
			o := chaosOptions{}
			o.Seconds, _ = f.GetInt("seconds")
			o.Executions, _ = f.GetInt("executions")
			o.Rate, _ = f.GetInt("rate")
			o.Seed, _ = f.GetUint64("seed")
			o.Keep, _ = f.GetBool("keep")
			o.Sabotage, _ = f.GetBool("sabotage")
			switch {
			case o.Seconds < 1 || o.Seconds > 24*3600:
				return usageError{errors.New("--seconds must be from 1 to 86400")}
			case o.Executions < 1 || o.Executions > 1000:
				return usageError{errors.New("--executions must be from 1 to 1000")}
			case o.Rate < 1 || o.Rate > 10000:
				return usageError{errors.New("--rate must be from 1 to 10000")}
			}
			for o.Seed == 0 {
				o.Seed = rand.Uint64N(1e9)
			}
			o.Say = chaosProgress(wantJSON(cmd))
			v, err := chaos(cmd.Context(), o)
			if err != nil {
				return err
			}
			if wantJSON(cmd) {
				err = printJSON(os.Stdout, v)
			} else {
				err = showVerdict(os.Stdout, v)
			}
			if err == nil && !v.Kept {
				return exitError(exitFailed)
			}
			return err
		},
	})
	f := cmd.Flags()
	f.Int("seconds", 60, "how long to mistreat the server")
	f.Int("executions", max(2, min(2*runtime.NumCPU(), 16)), "how many executions print lines all the time")
	f.Int("rate", 200, "lines a second that each of them prints")
	f.Uint64("seed", 0, "of the order of torments; 0 picks one and prints it")
	f.Bool("keep", false, "leave the scratch folder, with the server's log, where it is")
	f.Bool("sabotage", false, "cut one line out of a log before the count, to see that it is noticed")
	return cmd
}

// chaosOptions is what a run is asked for.
type chaosOptions struct {
	Seconds, Executions, Rate int
	Seed                      uint64
	Keep, Sabotage            bool
	Say                       func(line bool, format string, args ...any) // progress; line: for good
}

// verdict is what a run found. Its JSON is for scripts.
type verdict struct {
	Kept    bool     `json:"kept"` // every promise
	Broken  []string `json:"broken"`
	Seed    uint64   `json:"seed"`
	Seconds float64  `json:"seconds"`
	Folder  string   `json:"folder,omitempty"` // if it was kept

	Torments struct {
		Killed    int `json:"killed"`
		Frozen    int `json:"frozen"`
		Restarted int `json:"restarted"`
		// From the start of the new server to its first good answer.
		ReadyMedian float64 `json:"ready_median_seconds"`
		ReadyMax    float64 `json:"ready_max_seconds"`
	} `json:"torments"`

	Logs    lineCount `json:"logs"`    // what is stored
	Readers lineCount `json:"readers"` // what was seen while it happened

	Firings struct {
		Acknowledged int `json:"acknowledged"`
		Ran          int `json:"ran"`
		Lost         int `json:"lost"`
		Doubled      int `json:"doubled"`
		Repeated     int `json:"repeated"` // that were sent again on purpose, or had no answer
	} `json:"firings"`

	Executions struct {
		Started     int `json:"started"`
		Succeeded   int `json:"succeeded"`
		LeftRunning int `json:"left_running"`
		Failed      int `json:"failed"`
		AgentsCut   int `json:"agents_cut"` // that did not come to their own end
	} `json:"executions"`

	ProcessesLeft []string `json:"processes_left"`
}

// lineCount compares numbered lines with how many were printed.
type lineCount struct {
	Readers   int `json:"readers,omitempty"`
	Expected  int `json:"expected"`
	Found     int `json:"found"`
	Lost      int `json:"lost"`
	Doubled   int `json:"doubled"`
	Reordered int `json:"reordered"`
	Strange   int `json:"strange"` // nobody printed them
}

func (c *lineCount) add(o lineCount) {
	c.Expected += o.Expected
	c.Found += o.Found
	c.Lost += o.Lost
	c.Doubled += o.Doubled
	c.Reordered += o.Reordered
	c.Strange += o.Strange
}

// lineTally takes the lines of one execution as they come.
type lineTally struct {
	seen    []uint64 // a bit for each number
	last    int
	found   int
	doubled int
	late    int
	strange int
}

const chaosLine = "line "

// add takes one line.
func (t *lineTally) add(content string) {
	t.found++
	text, ok := strings.CutPrefix(content, chaosLine)
	n, err := strconv.Atoi(text)
	if !ok || err != nil || n < 1 || n > 1<<30 {
		t.strange++
		return
	}
	for n/64 >= len(t.seen) {
		t.seen = append(t.seen, make([]uint64, max(64, len(t.seen)))...)
	}
	bit := uint64(1) << (n % 64)
	switch {
	case t.seen[n/64]&bit != 0:
		t.doubled++
		return
	case n < t.last:
		t.late++
	}
	t.seen[n/64] |= bit
	t.last = max(t.last, n)
}

// count compares with the number of lines that were printed.
func (t *lineTally) count(printed int) lineCount {
	c := lineCount{Expected: printed, Found: t.found, Doubled: t.doubled, Reordered: t.late, Strange: t.strange}
	for n := 1; n <= max(printed, t.last); n++ {
		there := n/64 < len(t.seen) && t.seen[n/64]&(1<<(n%64)) != 0
		switch {
		case n <= printed && !there:
			c.Lost++
		case n > printed && there:
			c.Strange++
		}
	}
	return c
}

// judge says which promises were broken.
func (v *verdict) judge() {
	v.Broken = []string{}
	say := func(n int, what string) {
		if n != 0 {
			v.Broken = append(v.Broken, fmt.Sprintf("%s: %d", what, n))
		}
	}
	for _, c := range []struct {
		lineCount
		where string
	}{{v.Logs, "in the logs"}, {v.Readers, "on the way to readers"}} {
		say(c.Lost, "lines lost "+c.where)
		say(c.Doubled, "lines that came twice "+c.where)
		say(c.Reordered, "lines out of order "+c.where)
		say(c.Strange, "lines that nobody printed "+c.where)
	}
	say(v.Firings.Lost, "acknowledged firings that did not run")
	say(v.Firings.Doubled, "firings that ran more than once")
	say(v.Executions.LeftRunning, "executions that did not come to an end")
	say(v.Executions.Failed, "executions that ended otherwise than with success")
	say(v.Executions.AgentsCut, "agents that ended with the server")
	say(len(v.ProcessesLeft), "processes that outlived their execution")
	if v.Torments.Killed+v.Torments.Frozen+v.Torments.Restarted == 0 {
		v.Broken = append(v.Broken, "nothing was tried: the server was never up long enough")
	}
	v.Kept = len(v.Broken) == 0
}

// showVerdict writes the count for people.
func showVerdict(w io.Writer, v *verdict) error {
	t := v.Torments
	fmt.Fprintf(w, "In %s the server was killed %s, frozen %s and restarted %s.\nIt was ready again after %.2f s (median), %.2f s (at most).\n\n",
		short(time.Duration(v.Seconds*float64(time.Second))), times(t.Killed), times(t.Frozen), times(t.Restarted),
		t.ReadyMedian, t.ReadyMax)
	row := func(what string, cells ...any) {
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%-28s"+strings.Repeat("%10v", len(cells)), append([]any{what}, cells...)...), " "))
	}
	row("", "expected", "found", "lost", "doubled", "reordered")
	row("lines in the logs", v.Logs.Expected, v.Logs.Found, v.Logs.Lost, v.Logs.Doubled, v.Logs.Reordered)
	row(fmt.Sprintf("lines that %d readers saw", v.Readers.Readers), v.Readers.Expected, v.Readers.Found, v.Readers.Lost, v.Readers.Doubled, v.Readers.Reordered)
	row("acknowledged firings", v.Firings.Acknowledged, v.Firings.Ran, v.Firings.Lost, v.Firings.Doubled)
	row("executions that succeeded", v.Executions.Started, v.Executions.Succeeded)
	row("executions left running", 0, v.Executions.LeftRunning)
	row("agents cut short", 0, v.Executions.AgentsCut)
	row("processes left behind", 0, len(v.ProcessesLeft))
	for _, p := range v.ProcessesLeft {
		fmt.Fprintf(w, "  left: %s\n", printable(p))
	}
	fmt.Fprintln(w)
	if v.Folder != "" {
		fmt.Fprintf(w, "The folder is kept: %s (server.log is the server's).\n", v.Folder)
	}
	if v.Kept {
		_, err := fmt.Fprintln(w, paint(os.Stdout, green, "Every promise was kept."))
		return err
	}
	_, err := fmt.Fprintf(w, "%s\n  %s\nTo try it again: agented chaos --keep --seed %d\n",
		paint(os.Stdout, red, "A promise was broken:"), strings.Join(v.Broken, "\n  "), v.Seed)
	return err
}

func times(n int) string { return plural(n, "time", "times") }

// chaosProgress writes what happens to standard error: to a terminal as one
// line that changes, elsewhere only what is said for good.
func chaosProgress(quiet bool) func(bool, string, ...any) {
	live := terminal(os.Stderr)
	return func(line bool, format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		switch {
		case live && line:
			fmt.Fprintf(os.Stderr, "\r\x1b[K%s\n", text)
		case live:
			fmt.Fprintf(os.Stderr, "\r\x1b[K%s", text)
		case line && !quiet:
			fmt.Fprintln(os.Stderr, text)
		}
	}
}

// chaosAgentCommand is what the executions of a chaos run as their agent.
func chaosAgentCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "chaos-agent", Short: "Print numbered lines, for chaos", Hidden: true, Args: exactArgs(), RunE: func(cmd *cobra.Command, _ []string) error {
		dir, _ := cmd.Flags().GetString("dir")
		lines, _ := cmd.Flags().GetInt("lines")
		rate, _ := cmd.Flags().GetInt("rate")
		linger, _ := cmd.Flags().GetBool("linger")
		return chaosAgent(cmd.Context(), dir, lines, rate, linger)
	}}
	cmd.Flags().String("dir", "", "where it leaves what it did")
	cmd.Flags().Int("lines", 0, "how many to print; 0: until there is a file called stop")
	cmd.Flags().Int("rate", 200, "lines a second")
	cmd.Flags().Bool("linger", false, "leave a process behind, in a session of its own")
	return cmd
}

// chaosLife bounds everything that a chaos run starts, should nobody be left to
// end it.
const chaosLife = 10 * time.Minute

// chaosAgent prints numbered lines. It leaves a file when it starts, and one
// with the number of lines when it has come to its own end.
func chaosAgent(ctx context.Context, dir string, lines, rate int, linger bool) error {
	if dir == "" { // the process that lingers
		select {
		case <-ctx.Done():
		case <-time.After(chaosLife):
		}
		return nil
	}
	name := filepath.Join(dir, fmt.Sprintf("%s.%d", os.Getenv("AGENTED_EXECUTION_ID"), os.Getpid()))
	if err := os.WriteFile(name+".began", nil, 0o600); err != nil {
		return err
	}
	if linger {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		p, err := os.StartProcess(self, []string{self, "chaos-agent"}, &os.ProcAttr{
			Env: os.Environ(), Files: []*os.File{nil, nil, nil}, Sys: &syscall.SysProcAttr{Setsid: true},
		})
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.pid", p.Pid)), nil, 0o600); err != nil {
			return err
		}
	}
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	stop, end := filepath.Join(dir, "stop"), time.Now().Add(24*time.Hour+chaosLife)
	n := 0
	for lines == 0 || n < lines {
		if n%32 == 0 {
			if _, err := os.Stat(stop); lines == 0 && !errors.Is(err, os.ErrNotExist) || time.Now().After(end) {
				break
			}
		}
		n++
		if _, err := os.Stdout.WriteString(chaosLine + strconv.Itoa(n) + "\n"); err != nil {
			return err
		}
		<-tick.C
	}
	tmp := name + ".tmp"
	if err := os.WriteFile(tmp, []byte(strconv.Itoa(n)), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, name+".ended")
}

// agentReports reads what agents left: how often each execution's ran, and how
// many lines those printed that came to their end.
func agentReports(dir string) (began, ended, printed map[agented.ExecutionID]int, err error) {
	began, ended, printed = map[agented.ExecutionID]int{}, map[agented.ExecutionID]int{}, map[agented.ExecutionID]int{}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		id, rest, _ := strings.Cut(e.Name(), ".")
		switch execution := agented.ExecutionID(id); {
		case strings.HasSuffix(rest, ".began"):
			began[execution]++
		case strings.HasSuffix(rest, ".ended"):
			text, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				return nil, nil, nil, err
			}
			n, err := strconv.Atoi(string(text))
			if err != nil {
				return nil, nil, nil, fmt.Errorf("%s: %w", e.Name(), err)
			}
			ended[execution]++
			printed[execution] += n
		}
	}
	return began, ended, printed, err
}

// median of durations, 0 of none.
func median(list []time.Duration) time.Duration {
	if len(list) == 0 {
		return 0
	}
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}
