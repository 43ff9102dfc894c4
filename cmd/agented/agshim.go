//go:build agshim && linux

package main

import _ "embed"

// agshimProgram is cmd/agshim, which make build puts here.
//
//go:embed agshim.bin
var agshimProgram string
