package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func journal() {
	out, _ := run("journalctl", "-u", "agented", "-n", "40", "--no-pager", "-o", "cat")
	fmt.Println(out)
}

func property(name string) string {
	out, _ := run("systemctl", "show", "agented", "--value", "--property="+name)
	return out
}

func mainPID() int {
	pid, _ := strconv.Atoi(property("MainPID"))
	return pid
}

// awaitReady returns the time from since until the server is ready, or false after most.
func awaitReady(since time.Time, most time.Duration) (time.Duration, bool) {
	for time.Since(since) < most {
		if code, _, err := get(fresh, "/health/readiness"); err == nil && code == http.StatusOK {
			return time.Since(since), true
		}
		time.Sleep(2 * time.Millisecond)
	}
	return most, false
}

// kill sends the signal and waits until the kernel has delivered it, because the process may
// answer one more request until then.
func kill(pid int, sig syscall.Signal) {
	if pid <= 1 {
		return
	}
	_ = syscall.Kill(pid, sig)
	for range 1000 {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return
		}
		if state := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))[0]; strings.Contains("ZXTt", state) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// busy returns the load average and the number of processors.
func busy() (load float64, cpus int) {
	b, _ := os.ReadFile("/proc/loadavg")
	_, _ = fmt.Sscan(string(b), &load)
	return load, runtime.NumCPU()
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndex(s, "\n")+1:]
}
