package testrun

import (
	"os"
	"syscall"
)

// WriteProgram writes an executable file, as os.WriteFile does, that can be started at once. A process
// that another test starts meanwhile would have the file open for writing between its fork and its
// exec, and as long as one has, the kernel refuses to execute the file (ETXTBSY).
func WriteProgram(name string, content []byte, mode os.FileMode) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(name, content, mode)
}
