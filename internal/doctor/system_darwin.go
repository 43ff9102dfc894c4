package doctor

import "context"

// synchronised is not asked on macOS, which keeps its clock right by itself.
func synchronised() bool { return true }

// checkPlatform has nothing to add on macOS.
func checkPlatform(context.Context, Options, int) []Finding { return nil }
