package config

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is the hardware and the limits from which defaults are computed.
type Machine struct {
	CPUs        int    // usable by this process
	MemoryBytes uint64 // usable by this process; 0 if unknown
	Descriptors uint64 // limit of open files; 0 if unknown
}

// ThisMachine returns this machine with the limits of its container or service.
func ThisMachine() Machine {
	m := Machine{CPUs: runtime.GOMAXPROCS(0), MemoryBytes: physicalMemory()}
	if limit := groupMemory("/proc/self/cgroup", "/sys/fs/cgroup"); limit > 0 && (m.MemoryBytes == 0 || limit < m.MemoryBytes) {
		m.MemoryBytes = limit
	}
	// The Go runtime has already raised the soft limit to the hard one.
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		m.Descriptors = limit.Cur
	}
	return m
}

// DefaultMaxConcurrent returns the default limit of concurrent executions: two
// per CPU, since agents mostly wait for their model, but at most one per GiB of
// memory, which an agent CLI with its tools needs. At least 2, so that one long
// execution does not block all others.
func DefaultMaxConcurrent(cpus int, memoryBytes uint64) int {
	n := 2 * cpus
	if memoryBytes > 0 {
		n = int(min(uint64(max(n, 0)), memoryBytes>>30))
	}
	return max(n, 2)
}

// DefaultMaxConnections returns the default connection limit for a limit of
// open files: three quarters of what is left after 256 for database, logs and
// shims. At least 64; at most 16384, beyond which memory is the limit.
func DefaultMaxConnections(descriptors uint64) int {
	if descriptors <= 256 {
		return 64
	}
	return int(min(max((descriptors-256)/4*3, 64), 16384))
}

// groupMemory returns the lowest memory limit in bytes of the process's cgroup
// and its ancestors, 0 if there is none.
func groupMemory(membership, root string) uint64 {
	data, err := os.ReadFile(membership)
	if err != nil {
		return 0
	}
	lowest := uint64(0)
	for line := range strings.Lines(string(data)) {
		group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		for {
			text, err := os.ReadFile(filepath.Join(root, group, "memory.max"))
			if n, perr := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil && perr == nil && (lowest == 0 || n < lowest) {
				lowest = n
			}
			if group == "/" || group == "." || group == "" {
				break
			}
			group = filepath.Dir(group)
		}
	}
	return lowest
}
