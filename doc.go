// Package agented defines the domain types of Agented: its nouns, their states
// and the rules between them. It does no I/O, starts no goroutine and never
// reads the clock; callers pass in the time.
//
// A [Trigger] defines when to run and with which prompt. It is fired by a
// person, a schedule, a webhook or a message. One firing is an [Execution], the
// id that people see and follow. An execution is tried as one or more
// [Attempt]s; an attempt is one process of one agent CLI, owned by a shim
// process that outlives the server. The CLI's output becomes numbered
// [LogLine]s in one log per execution: they are on disk before they are shown,
// counted from 1, and never renumbered.
//
// The execution row is also the queue entry. A node claims it with a [Lease],
// and every later write carries the lease's token, so that a node that lost its
// lease cannot overwrite the decisions of another node.
package agented
