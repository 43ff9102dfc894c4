package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/config"
)

// agentLife is the maximum lifetime of every process that a test run starts, in case the run
// itself is killed.
const agentLife = 10 * time.Minute

// Agent prints numbered lines. It writes one report file when it starts and one with the
// number of lines after the last line.
func Agent(ctx context.Context, dir string, lines, rate int, linger bool) error {
	if dir == "" { // the process that lingers
		select {
		case <-ctx.Done():
		case <-time.After(agentLife):
		}
		return nil
	}
	name := filepath.Join(dir, fmt.Sprintf("%s.%d", config.ExecutionID(), os.Getpid()))
	if err := os.WriteFile(name+".began", nil, 0o600); err != nil {
		return err
	}
	if linger {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		p, err := os.StartProcess(self, []string{self, "chaos-agent"}, &os.ProcAttr{
			Files: []*os.File{nil, nil, nil}, Sys: &syscall.SysProcAttr{Setsid: true},
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
	stop, end := filepath.Join(dir, "stop"), time.Now().Add(24*time.Hour+agentLife)
	n := 0
	for lines == 0 || n < lines {
		if n%32 == 0 {
			if _, err := os.Stat(stop); lines == 0 && !errors.Is(err, os.ErrNotExist) || time.Now().After(end) {
				break
			}
		}
		n++
		if _, err := os.Stdout.WriteString(linePrefix + strconv.Itoa(n) + "\n"); err != nil {
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

// agentReports reads the report files of the agents: how often each execution's agent started and
// ended, and how many lines the ended ones printed.
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

// median returns the median of the durations, or 0 for an empty list.
func median(list []time.Duration) time.Duration {
	if len(list) == 0 {
		return 0
	}
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}
