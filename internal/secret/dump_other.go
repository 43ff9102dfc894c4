//go:build !linux

package secret

// Undumpable does nothing on this system: there is no equivalent of the Linux
// call, and other processes of the same user may be able to read this process's
// environment. For this reason secrets are also removed from it once they are
// read.
func Undumpable() error { return nil }
