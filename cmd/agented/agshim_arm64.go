//go:build agshim && linux

package main

import _ "embed"

// agshimProgram is cmd/agshim, built for this architecture before the program.
//
//go:embed agshim_arm64.bin
var agshimProgram string
