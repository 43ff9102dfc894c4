package doctor

import "context"

// synchronised returns true: macOS keeps its clock synchronised.
func synchronised() bool { return true }

// checkPlatform has no checks on macOS.
func checkPlatform(context.Context, Options, int) []Finding { return nil }
