package doctor

import "golang.org/x/sys/unix"

// remoteType names a file system on which locks and shared memory do not work
// as a database needs them; empty for others.
func remoteType(st *unix.Statfs_t) string {
	switch name := unix.ByteSliceToString(st.Fstypename[:]); name {
	case "nfs", "smbfs", "afpfs", "webdav":
		return name
	}
	return ""
}
