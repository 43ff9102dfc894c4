// Package webhook evaluates inbound HTTP calls: whether one is authentic, what
// event it contains, and which triggers it fires.
//
// A call is processed in this order: [Auth.Verify] (or [GitHub], or [Decoy] if
// there is nothing to verify against) on the raw bytes, then [Parse], then
// [Evaluate] for each trigger, and [Fence] for the values that go into a
// prompt.
//
// The package processes untrusted bytes: it does no I/O, reads no clock (the
// time is an argument), starts no goroutine, and its work is limited regardless
// of the input. Only [NewBoundary] is not a pure function.
package webhook

// MaxBody is the largest body of a call, in bytes: GitHub's own limit.
const MaxBody = 25 << 20
