//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// procs is the set of processes of a server.
type procs []int

// withChildren adds the processes that pid has started.
func withChildren(pid int) procs {
	out := procs{pid}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, t := range tasks {
		b, _ := os.ReadFile(t)
		for _, f := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(f); err == nil {
				out = append(out, withChildren(child)...)
			}
		}
	}
	return out
}

// cpu returns the CPU time of the processes, to the nanosecond. /proc counts in ticks by sampling
// the running process, and misses most of the time of processes that run for less than a tick.
func (p procs) cpu() time.Duration {
	var sum time.Duration
	for _, pid := range p {
		var ts unix.Timespec
		// The CPU clock of another process, as clock_getcpuclockid(3) names it.
		if unix.ClockGettime(int32(^pid<<3|2), &ts) == nil {
			sum += time.Duration(ts.Nano())
		}
	}
	return sum
}

// memory returns the memory of the processes in bytes: the proportional set size, or the resident
// size if the kernel does not report it.
func (p procs) memory() float64 {
	var sum float64
	for _, pid := range p {
		kb := field(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss")
		if kb == 0 {
			kb = field(fmt.Sprintf("/proc/%d/status", pid), "VmRSS")
		}
		sum += kb * 1024
	}
	return sum
}

// rss returns the resident size in bytes.
func (p procs) rss() float64 {
	var sum float64
	for _, pid := range p {
		sum += field(fmt.Sprintf("/proc/%d/status", pid), "VmRSS") * 1024
	}
	return sum
}

// wakeups returns how often threads of the processes blocked voluntarily, which is how often they
// were woken.
func (p procs) wakeups() float64 {
	var sum float64
	for _, pid := range p {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		for _, t := range tasks {
			sum += field(t, "voluntary_ctxt_switches")
		}
	}
	return sum
}

// field reads a number after a name from a file of /proc; it returns 0 if there is none.
func field(path, name string) float64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return n
		}
	}
	return 0
}

// shims lists the shims that work in a data folder.
func shims(data string) procs {
	var out procs
	all, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, path := range all {
		b, _ := os.ReadFile(path)
		if strings.TrimSpace(string(b)) != "agshim" {
			continue
		}
		dir := filepath.Dir(path)
		if cwd, err := os.Readlink(filepath.Join(dir, "cwd")); err == nil && strings.HasPrefix(cwd, data+"/") {
			if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
				out = append(out, pid)
			}
		}
	}
	return out
}

// peak samples the memory of the processes until stop is called, which returns the maximum.
func (p procs) peak(every time.Duration) (stop func() float64) {
	end, result := make(chan struct{}), make(chan float64)
	go func() {
		var most float64
		for {
			most = max(most, p.memory())
			select {
			case <-end:
				result <- most
				return
			case <-time.After(every):
			}
		}
	}()
	return func() float64 { close(end); return <-result }
}
