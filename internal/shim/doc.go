// Package shim runs one attempt where the end of the server cannot reach it.
//
// The server calls [Start]; that makes a process of the same program, the shim,
// which owns the agent CLI from its start to the end of its last descendant. It
// takes what the CLI prints into the execution's run log, holds the limits, and
// writes down how it ended. When the server goes away the shim stays; the next
// server finds it by its bundle, a folder:
//
//	spec.json   what to run; written first, never changed
//	lock        flock, held by the shim as long as it lives
//	begun.json  written before the CLI is started: from here on it may have run
//	child.json  which process the CLI is; not synced, of use only before a reboot
//	stdin       what the CLI reads
//	stdout      raw output where it is captured by file; not masked, holes
//	stderr      behind what the log has on disk
//	ctl.sock    where the shim answers
//	exit.json   renamed into place last: the log is complete; until then its room is
//	            kept, and some more for the last words when the disk is full
//	shim.log    what the shim itself has to say, a crash for instance
//
// The lock says who lives, the files say how far it came. [Inspect] reads them,
// [Decide] draws the conclusion.
package shim
