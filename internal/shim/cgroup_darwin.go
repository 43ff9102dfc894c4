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
func (c *cgroup) limit(memory int64, processes int) (missing []string) {
	if memory > 0 {
		missing = append(missing, "memory")
	}
	if processes > 0 {
		missing = append(missing, "processes")
	}
	return missing
}

func (c *cgroup) reachedLimits() (killed string, all []string) { return "", nil }
