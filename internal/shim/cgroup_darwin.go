package shim

import "time"

// cgroup does not exist on macOS.
type cgroup struct{}

func newCgroup(string) *cgroup          { return nil }
func openCgroup(string, string) *cgroup { return nil }
func (c *cgroup) folder() string        { return "" }
func (c *cgroup) kill() bool            { return false }
func (c *cgroup) remove()               {}

func (c *cgroup) freeze(bool, time.Duration) bool { return false }

func (c *cgroup) pids() []int { return nil }

// limit applies no limit on macOS.
func (c *cgroup) limit(s *Spec) (missing []string) {
	if s.MaxMemory > 0 {
		missing = append(missing, "memory")
	}
	if s.MaxProcesses > 0 {
		missing = append(missing, "processes")
	}
	if s.CPUWeight > 0 {
		missing = append(missing, "cpu weight")
	}
	return missing
}

func lowerPriority(_ *Spec, _ int, missing []string) []string { return missing }

func (c *cgroup) reachedLimits() (killed string, all []string) { return "", nil }
