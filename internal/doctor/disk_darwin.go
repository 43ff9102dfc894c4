package doctor

import "golang.org/x/sys/unix"

// remoteType names a network file system, whose locks and shared memory are unsafe for a
// database. It is empty for other file systems.
func remoteType(st *unix.Statfs_t) string {
	switch name := unix.ByteSliceToString(st.Fstypename[:]); name {
	case "nfs", "smbfs", "afpfs", "webdav":
		return name
	}
	return ""
}
