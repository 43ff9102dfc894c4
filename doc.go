// Package agented is the vocabulary of Agented: the nouns, the states and the
// rules that hold between them. It does no I/O, starts no goroutine and never
// asks the clock; whoever needs a time passes it in.
//
// A [Trigger] says when to work and what to ask. Something fires it: a person,
// a schedule, a webhook. One firing is an [Execution], the id that people see
// and follow. An execution is tried as one or more [Attempt]s; an attempt is
// one process of one agent CLI, owned by a shim process that outlives the
// server. Whatever the CLI prints becomes numbered [LogLine]s in one log per
// execution: on disk before anybody sees them, counted from 1, never
// renumbered.
//
// The execution row is also the queue entry. A node takes it with a [Lease],
// and every later write carries the lease's token, so that a node that lost
// its lease cannot change what another node decided.
package agented
