//go:build !linux

package secret

// Undumpable does nothing here: there is no equal of the Linux call, and another
// process of the same user may be able to read this one's environment. Hence
// secrets are also taken out of it once they are read.
func Undumpable() error { return nil }
