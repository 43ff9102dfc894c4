// Package shim runs one attempt in a process that outlives the server.
//
// The server calls [Start], which starts a process of the same program, the shim. The shim owns
// the agent CLI from its start until its last descendant has ended. It writes the CLI's output to
// the execution's run log, enforces limits, and records the exit. If the server ends, the shim
// continues, and the next server finds it through its bundle, a folder:
//
//	spec.json   what to run; written first, never changed
//	lock        flock, held by the shim as long as it is alive
//	begun.json  written before the CLI is started: from here on it may have run
//	child.json  the CLI's process; not synced, valid only until a reboot
//	stdin       input of the CLI
//	stdout      raw output for capture by file; unmasked; what the log has
//	stderr      on disk is punched out
//	unmasked    masked lines of the log as they were printed, of agents only
//	ctl.sock    control socket of the shim
//	exit.json   renamed into place last: the log is complete; its space is
//	            allocated in advance, with a reserve for the last lines
//	shim.log    output of the shim itself, such as a crash
//
// The lock shows whether the shim is alive, the files show how far the attempt came. [Inspect]
// reads them, and [Decide] derives the state.
package shim
