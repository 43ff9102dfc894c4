package shim

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of system calls of 64-bit programs, and of 32-bit programs on the same kernel.
type callNumbers struct{ arch, clone, clone3, unshare uint32 }

var callTables = map[string][]callNumbers{
	"amd64": {
		{unix.AUDIT_ARCH_X86_64, 56, 435, 272},
		{unix.AUDIT_ARCH_I386, 120, 435, 310},
	},
	"arm64": {
		{unix.AUDIT_ARCH_AARCH64, 220, 435, 97},
		{unix.AUDIT_ARCH_ARM, 120, 435, 337},
	},
}

// restrict forbids this process and its children to create control group namespaces. In one, a
// process may mount the control group that it shares with the server, and its owner may then kill
// all processes in it with a write to a file. Other namespaces remain allowed, because the CLIs'
// own sandboxes use them. clone3 is answered as on an old kernel, because a filter cannot read its
// flags; programs then use clone.
func restrict() error {
	filter := restrictFilter(runtime.GOARCH)
	if filter == nil {
		return unix.ENOSYS
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	const setFilter, allThreads = 1, 1 // SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, setFilter, allThreads, uintptr(unsafe.Pointer(&program))); errno != 0 {
		return errno
	}
	return nil
}

// restrictFilter returns the filter for an architecture, or nil if it is unknown.
func restrictFilter(arch string) []unix.SockFilter {
	tables := callTables[arch]
	if tables == nil {
		return nil
	}
	const (
		numberAt, archAt, flagsAt = 0, 4, 16 // in struct seccomp_data; flagsAt is the first argument
		allow                     = unix.SECCOMP_RET_ALLOW
		forbid                    = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
		unknown                   = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
		x32                       = 0x40000000 // bit of the calls of the x32 ABI
	)
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	jump := func(how uint16, k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | how, Jt: yes, Jf: no, K: k}
	}
	ret := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	var out []unix.SockFilter
	for _, t := range tables {
		out = append(out,
			load(archAt),
			jump(unix.BPF_JEQ, t.arch, 0, 11), // to the next table
			load(numberAt),
			jump(unix.BPF_JGE, x32, 4, 0), // unknown
			jump(unix.BPF_JEQ, t.clone3, 3, 0),
			jump(unix.BPF_JEQ, t.clone, 3, 0),
			jump(unix.BPF_JEQ, t.unshare, 2, 0),
			ret(allow),
			ret(unknown),
			load(flagsAt),
			jump(unix.BPF_JSET, unix.CLONE_NEWCGROUP, 1, 0),
			ret(allow),
			ret(forbid),
		)
	}
	return append(out, ret(forbid)) // another architecture
}
