// Command contain runs a command and ends every process that it leaves, also
// when it is killed. It fails when the command does, or when processes stay.
//
//	contain COMMAND [ARGUMENT...]
package main

import (
	"fmt"
	"os"

	"github.com/agented/agented/internal/testrun"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: contain COMMAND [ARGUMENT...]")
		os.Exit(2)
	}
	testrun.ContainCommand(os.Args[1], os.Args[2:]...)
}
