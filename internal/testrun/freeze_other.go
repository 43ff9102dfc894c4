//go:build !linux

package testrun

import "testing"

// Freezer is a control group that can be frozen; this platform has none.
type Freezer struct{}

// NewFreezer skips the test.
func NewFreezer(t testing.TB) *Freezer {
	t.Skip("NOT CHECKED: this platform has no control groups")
	return nil
}

// Add does nothing on this platform.
func (*Freezer) Add(...int) {}

// Freeze does nothing on this platform.
func (*Freezer) Freeze() {}

// Thaw does nothing on this platform.
func (*Freezer) Thaw() {}
