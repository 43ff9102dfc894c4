// Package webhook decides about inbound HTTP calls: whether one is genuine,
// what it says, and which trigger it fires.
//
// A call goes through it in this order: [Auth.Verify] (or [GitHub], or [Decoy]
// when there is nothing to verify against) on the raw bytes, then [Parse], then
// [Evaluate] for each trigger, and [Fence] for what goes into a prompt.
//
// Everything here is a rule on bytes that a stranger chose: no input or output,
// no clock (the time is an argument), no goroutine, and an end within a bound
// that the sender cannot move. Only [NewBoundary] is not a pure function.
package webhook

// MaxBody is the largest body of a call, in bytes: GitHub's own limit.
const MaxBody = 25 << 20
