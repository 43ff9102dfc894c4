package shim

import (
	"os"
)

// initArgument is not used on macOS.
const (
	initArgument  = "init"
	initProgramFD = 7
)

// box does not exist on macOS.
type box struct{}

func forkBox(*Spec, *handover, *os.File, *outlet, *cgroup) (int, *box, error) {
	return 0, nil, sandboxError("sandboxes require Linux: set sandbox to off")
}

func (b *box) watch(*reaper) {}
func (b *box) kill()         {}
func (b *box) has(int) bool  { return false }
func (b *box) wrapper() int  { return 0 }
func (b *box) close()        {}

func (b *box) brokerListener() *os.File { return nil }

func initMain() int { return 2 }
