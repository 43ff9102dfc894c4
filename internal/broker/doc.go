// Package broker keeps the credentials of an attempt away from its agent. The agent CLI receives
// placeholders and a loopback address. The broker behind that address replaces each placeholder by
// the real credential, forwards calls of models to the provider, and refuses all other paths. It
// streams answers unbuffered, and reads the token usage and the limits in them.
//
// [Setup] runs in the server and adapts the environment of the CLI. [New] runs in the shim of the
// attempt, so that a stream continues while the server restarts. The shim links this package and
// nothing else of it may cost time before main begins: package variables need no initialization.
package broker
