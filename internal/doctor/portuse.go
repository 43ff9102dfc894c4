package doctor

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/agented/agented/internal/config"
)

// probe checks whether the address is in use. It binds without listening, so no client can
// connect.
func probe(b config.Address) (taken, denied bool) {
	ip := addressOf(b)
	family := unix.AF_INET
	if ip == nil || ip.To4() == nil {
		family = unix.AF_INET6
	}
	if ip == nil || ip.Equal(net.IPv4zero) {
		family = unix.AF_INET // every address: IPv4 conflicts show all relevant uses
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return false, false
	}
	defer unix.Close(fd)
	unix.CloseOnExec(fd)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	var sa unix.Sockaddr
	if family == unix.AF_INET {
		s := &unix.SockaddrInet4{Port: b.Port}
		if ip != nil {
			copy(s.Addr[:], ip.To4())
		}
		sa = s
	} else {
		s := &unix.SockaddrInet6{Port: b.Port}
		copy(s.Addr[:], ip.To16())
		sa = s
	}
	err = unix.Bind(fd, sa)
	return errors.Is(err, unix.EADDRINUSE), errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)
}

// portHolder names the process that listens on a port, as far as /proc shows it. keeps is true if
// a service manager holds the socket for its service.
func portHolder(root string, port int) (who string, keeps bool) {
	who = "another program"
	sockets := map[string]bool{}
	for _, name := range []string{"tcp", "tcp6"} {
		f, err := os.Open(filepath.Join(root, "/proc/net", name))
		if err != nil {
			continue
		}
		for in := bufio.NewScanner(f); in.Scan(); {
			// sl local_address rem_address st ... uid timeout inode
			fields := strings.Fields(in.Text())
			if len(fields) < 10 || fields[3] != "0A" {
				continue
			}
			_, hex, _ := strings.Cut(fields[1], ":")
			if n, err := strconv.ParseUint(hex, 16, 32); err == nil && int(n) == port {
				sockets["socket:["+fields[9]+"]"] = true
			}
		}
		f.Close()
	}
	if len(sockets) == 0 {
		return who, false
	}
	fds, _ := filepath.Glob(filepath.Join(root, "/proc/[0-9]*/fd/*"))
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && sockets[to] {
			folder := filepath.Dir(filepath.Dir(fd))
			pid := filepath.Base(folder)
			comm, _ := os.ReadFile(filepath.Join(folder, "comm"))
			name := strings.TrimSpace(string(comm))
			if name == "systemd" {
				return name, true
			}
			who = fmt.Sprintf("%s (process %s)", name, pid)
		}
	}
	return who, false
}
