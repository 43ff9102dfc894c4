package agented

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Sandbox is the level of isolation of an agent's processes from the server and the machine; see
// docs/concepts/security-model.md.
type Sandbox string

// The sandbox levels.
const (
	SandboxOff   Sandbox = "off"   // the agent can read what the server's user can read
	SandboxGuard Sandbox = "guard" // the agent cannot reach the server, its data and other executions
	// SandboxStrict also takes away the network, and everything is read-only except the working
	// directory, paths and a home folder of the execution's own.
	SandboxStrict Sandbox = "strict"
)

// SandboxAuto is a value of the server's default level only: guard where the machine provides it,
// otherwise off.
const SandboxAuto Sandbox = "auto"

// Isolation is the level that an attempt runs at, and why.
type Isolation struct {
	Level  Sandbox
	Reason string // one phrase, for display
}

// Sandboxes lists the levels from the weakest to the strongest.
var Sandboxes = []Sandbox{SandboxOff, SandboxGuard, SandboxStrict}

// Problem returns why a spec or the server's settings cannot contain the level, or "". The empty
// level is valid: it means the server's default.
func (s Sandbox) Problem() string {
	if s == "" || slices.Contains(Sandboxes, s) {
		return ""
	}
	return fmt.Sprintf("must be one of %s", join(Sandboxes))
}

// Stronger reports whether the level isolates more than another one. The empty level, which stands
// for the server's default, is the weakest here.
func (s Sandbox) Stronger(than Sandbox) bool {
	return slices.Index(Sandboxes, s) > slices.Index(Sandboxes, than)
}

// Limits bounds what all processes of one execution together use. A value of 0 is the server's
// default.
type Limits struct {
	Memory    int `json:"memory,omitempty" doc:"MiB of memory. Beyond it the kernel kills the largest of the processes"`
	Swap      int `json:"swap,omitempty" doc:"MiB of swap in addition to memory; counts only together with a limit of memory"`
	PIDs      int `json:"pids,omitempty" doc:"Concurrent processes and threads. Beyond it none can be started"`
	CPUWeight int `json:"cpu_weight,omitempty" doc:"Share of the processors when they are busy, from 1 to 10000; the system's default is 100"`
	Disk      int `json:"disk,omitempty" doc:"MiB of files in the folders of the execution: checkout or working directory, temporary files, artifacts, and its home folder at sandbox level strict. Beyond it the attempt is ended. A working_dir of the trigger does not count"`
}

// The largest values of Limits.
const (
	MaxLimitMiB  = 100_000_000
	MaxLimitPIDs = 4_000_000
	MaxCPUWeight = 10_000
)

// validate reports every field that is out of range.
func (l Limits) validate(refuse func(path, format string, args ...any)) {
	for _, f := range []struct {
		name       string
		value, max int
	}{{"memory", l.Memory, MaxLimitMiB}, {"swap", l.Swap, MaxLimitMiB}, {"pids", l.PIDs, MaxLimitPIDs}, {"cpu_weight", l.CPUWeight, MaxCPUWeight}, {"disk", l.Disk, MaxLimitMiB}} {
		if f.value < 0 || f.value > f.max {
			refuse("limits."+f.name, "must be from 0 (the server's default) to %d", f.max)
		}
	}
}

// Lower returns the lower of both values of each limit.
func (l Limits) Lower(than Limits) Limits {
	lower := func(a, b int) int {
		if a == 0 || b != 0 && b < a {
			return b
		}
		return a
	}
	return Limits{lower(l.Memory, than.Memory), lower(l.Swap, than.Swap), lower(l.PIDs, than.PIDs), lower(l.CPUWeight, than.CPUWeight), lower(l.Disk, than.Disk)}
}

// Or returns the limits with those that are 0 taken from other ones.
func (l Limits) Or(other Limits) Limits {
	return Limits{cmp.Or(l.Memory, other.Memory), cmp.Or(l.Swap, other.Swap), cmp.Or(l.PIDs, other.PIDs), cmp.Or(l.CPUWeight, other.CPUWeight), cmp.Or(l.Disk, other.Disk)}
}

// Network is what an agent may reach from a sandbox without a network of its own, besides the API of
// its model and the host of its workspace.
type Network struct {
	Allow []string `json:"allow" doc:"Hosts that may be reached over HTTP and HTTPS: names (registry.example.org), names with a port (git.example.org:8443), all names below one (*.example.org), addresses and their ranges (10.0.0.5, 10.0.0.0/8), and github for GitHub with its API and downloads"`
}

// MaxAllowed is the most entries of a list of hosts.
const MaxAllowed = 200

// HostSets lists the names of the sets of hosts.
var HostSets = []string{"github"}

// hostSet returns the entries of a set, or nil.
func hostSet(name string) []string {
	switch name {
	case "github":
		return []string{"github.com", "api.github.com", "codeload.github.com", "*.githubusercontent.com"}
	}
	return nil
}

// validate reports every entry that is invalid.
func (n *Network) validate(s Sandbox, refuse func(path, format string, args ...any)) {
	if n == nil {
		return
	}
	if s == SandboxOff || s == SandboxGuard {
		refuse("network", "applies at sandbox level strict only: set sandbox to strict, or remove it")
	}
	if len(n.Allow) > MaxAllowed {
		refuse("network.allow", "is too long: name at most %d hosts", MaxAllowed)
		return
	}
	for i, entry := range n.Allow {
		if _, err := parseAllowed(entry); err != nil {
			refuse(fmt.Sprintf("network.allow.%d", i), "%s", err.Error())
		}
	}
}

// AllowList decides which hosts may be reached.
type AllowList []allowed

// allowed is an entry: a name, all names below one, or a range of addresses.
type allowed struct {
	name  string       // in lower case; empty for addresses
	below bool         // the names below it, not itself
	addrs netip.Prefix // valid for addresses
	port  uint16       // 0: those of HTTP and HTTPS
	any   bool         // any port
}

// NewAllowList parses entries; see [Network].
func NewAllowList(entries []string) (AllowList, error) {
	var list AllowList
	for _, entry := range entries {
		set := hostSet(entry)
		if set == nil {
			set = []string{entry}
		}
		for _, e := range set {
			a, err := parseAllowed(e)
			if err != nil {
				return nil, Errorf(Invalid, "%q %s", clip(e), err.Error())
			}
			list = append(list, a)
		}
	}
	return list, nil
}

// parseAllowed parses an entry. The name of a set is valid too. Its error continues a sentence.
func parseAllowed(entry string) (a allowed, err error) {
	if hostSet(entry) != nil {
		return allowed{}, nil
	}
	if strings.Contains(entry, "//") {
		return a, errors.New("is a URL: write only the host")
	}
	host := entry
	if i := strings.LastIndexByte(entry, ':'); i >= 0 && !strings.Contains(entry[i:], "]") && (strings.Count(entry, ":") == 1 || entry[0] == '[') {
		host = entry[:i]
		if entry[i+1:] == "*" {
			a.any = true
		} else {
			port, err := strconv.ParseUint(entry[i+1:], 10, 16)
			if err != nil || port == 0 {
				return a, errors.New("has a port that is not a number from 1 to 65535, or *")
			}
			a.port = uint16(port)
		}
	}
	host = strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	if p, err := netip.ParsePrefix(host); err == nil {
		if p.Bits() == 0 {
			return a, errors.New("contains all addresses: name a smaller range")
		}
		a.addrs = p.Masked()
		return a, nil
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		a.addrs = netip.PrefixFrom(ip, ip.BitLen())
		return a, nil
	}
	a.name, a.below = strings.CutPrefix(host, "*.")
	if !validHost(a.name) || a.below && !strings.Contains(a.name, ".") {
		return a, fmt.Errorf("is not a host: use a name, *.NAME, an address or a range of addresses, each with a port if needed, or one of the sets %s", strings.Join(HostSets, ", "))
	}
	return a, nil
}

// validHost reports whether a text is the name of a host, in lower case.
func validHost(name string) bool {
	if len(name) == 0 || len(name) > 253 {
		return false
	}
	digits := true // a name that ends in a number is another way to write an address
	for _, label := range strings.Split(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		digits = true
		for _, c := range []byte(label) {
			if c < '0' || c > '9' {
				digits = false
			}
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
		digits = digits || strings.HasPrefix(label, "0x")
	}
	return !digits
}

// open reports whether the entry allows a port.
func (a allowed) open(port uint16) bool {
	return a.any || a.port == port || a.port == 0 && (port == 80 || port == 443)
}

// Host reports whether a host may be asked for: a name, or an address.
func (l AllowList) Host(host string, port uint16) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if ip, err := netip.ParseAddr(host); err == nil {
		return l.Addr(ip, port)
	}
	return validHost(host) && slices.ContainsFunc(l, func(a allowed) bool {
		if a.name == "" || !a.open(port) {
			return false
		}
		if a.below {
			return strings.HasSuffix(host, "."+a.name)
		}
		return host == a.name
	})
}

// Addr reports whether an entry contains an address. Those for localhost contain the loopback
// addresses.
func (l AllowList) Addr(ip netip.Addr, port uint16) bool {
	ip = ip.Unmap()
	return ip.Zone() == "" && slices.ContainsFunc(l, func(a allowed) bool {
		return a.open(port) && (a.addrs.IsValid() && a.addrs.Contains(ip) || a.name == "localhost" && !a.below && ip.IsLoopback())
	})
}

// Loopback reports whether an entry allows a loopback address.
func (l AllowList) Loopback() bool {
	return slices.ContainsFunc(l, func(a allowed) bool {
		return a.name == "localhost" || a.addrs.IsValid() && a.addrs.Addr().IsLoopback()
	})
}

func join[T ~string](all []T) string {
	text := ""
	for i, s := range all {
		if i > 0 {
			text += ", "
		}
		text += string(s)
	}
	return text
}
