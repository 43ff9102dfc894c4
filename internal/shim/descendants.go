package shim

import "os"

// AdoptOrphans makes this process the parent of every descendant whose own parent exits, so that
// Descendants finds them all. It does nothing on macOS, where launchd adopts orphans.
func AdoptOrphans() error { return adoptOrphans() }

// Descendants lists the living processes below this one, including those whose first thread has
// exited.
func Descendants() ([]int, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, p := range descendants(all, []int{os.Getpid()}) {
		pids = append(pids, p.pid)
	}
	return pids, nil
}
