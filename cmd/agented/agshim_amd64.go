//go:build agshim && linux

package main

import _ "embed"

// agshimProgram is cmd/agshim, built for this architecture before the program, and
// compressed by scripts/pack.
//
//go:embed agshim_amd64.bin.zst
var agshimProgram string
