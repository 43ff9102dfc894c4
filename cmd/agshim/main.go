// Command agshim is the supervisor of one attempt, and nothing else: what
// `agented shim` does, without the packages of a server, which cost time and
// memory before main begins. `make build` puts it into the main program.
package main

import (
	"os"

	"github.com/agented/agented/internal/shim"
)

func main() { os.Exit(shim.Main()) }
