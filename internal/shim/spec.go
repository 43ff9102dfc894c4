package shim

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/broker"
)

// Version is the version of the bundle and of the control protocol. A shim outlives upgrades of
// the server, so both sides ignore unknown fields.
const Version = 1

// shimName is the process name of a shim. It must not contain the server's name, so that killing
// the server by name does not affect shims.
const shimName = "agshim"

// Names of the files in a bundle.
const (
	specFile     = "spec.json"
	lockFile     = "lock"
	begunFile    = "begun.json"
	childFile    = "child.json"
	stdinFile    = "stdin"
	stdoutFile   = "stdout"
	stderrFile   = "stderr"
	unmaskedFile = "unmasked"
	reserveFile  = "reserve"
	socketFile   = "ctl.sock"
	exitFile     = "exit.json"
	brokerFile   = "broker"
	logFile      = "shim.log"
)

// Defaults of a Spec's limits.
const (
	DefaultGrace     = 10 * time.Second
	DefaultOutputCap = 1 << 30
)

// Spec contains what a shim runs, and its limits. It becomes spec.json, so it never contains
// environment variables or secrets.
type Spec struct {
	Version   int                 `json:"v"` // set by Start
	Execution agented.ExecutionID `json:"execution"`
	Trigger   agented.TriggerID   `json:"trigger,omitempty"`
	Attempt   int                 `json:"attempt"`
	FirstSeq  agented.Seq         `json:"first_seq"` // one more than the log's last number when the attempt was created

	Path    string          `json:"path"` // absolute path of the program
	Args    []string        `json:"args"` // Args[0] is the program's name
	Dir     string          `json:"dir"`  // working directory, absolute
	Capture agented.Capture `json:"capture"`
	Stream  agented.Stream  `json:"stream,omitempty"` // of all output; empty: stdout and stderr
	Stdin   bool            `json:"stdin"`            // the bundle has a stdin file; otherwise stdin is /dev/null

	Timeout      time.Duration `json:"timeout"`                 // from the start of the CLI; 0 means none
	Silence      time.Duration `json:"silence"`                 // time without output on any stream; 0 means none
	Grace        time.Duration `json:"grace"`                   // between SIGTERM and SIGKILL; 0 means DefaultGrace
	OutputCap    int64         `json:"output_cap"`              // bytes of output; 0 means DefaultOutputCap
	MinFree      int64         `json:"min_free"`                // free bytes on the log's disk; 0 disables the check
	MaxMemory    int64         `json:"max_memory,omitempty"`    // bytes of all its processes; 0 means no limit
	MaxSwap      int64         `json:"max_swap,omitempty"`      // bytes of swap, with MaxMemory
	MaxProcesses int           `json:"max_processes,omitempty"` // processes and threads; 0 means no limit
	CPUWeight    int           `json:"cpu_weight,omitempty"`    // 1 to 10000; 0 means the system's default
	MaxDisk      int64         `json:"max_disk,omitempty"`      // bytes of files in DiskFolders; 0 means no limit
	DiskFolders  []string      `json:"disk_folders,omitempty"`  // absolute; none contains another
	Sandbox      *Box          `json:"sandbox,omitempty"`       // nil means none
	// SandboxReason is why the attempt has this sandbox, or none; for display.
	SandboxReason string    `json:"sandbox_reason,omitempty"`
	Broker        bool      `json:"broker,omitempty"`      // set by Start: it has a broker
	Credentials   bool      `json:"credentials,omitempty"` // set by Start: the broker holds the credentials
	BootID        string    `json:"boot_id"`               // set by Start; see bootID
	CreatedAt     time.Time `json:"created_at"`
}

// Box is the sandbox of the CLI. Linux only.
type Box struct {
	Level   agented.Sandbox `json:"level"`
	Command []string        `json:"command"` // bwrap and its options; see sandbox.Facts.Command
	Forward *Forward        `json:"forward,omitempty"`
	// BrokerPort is the port of the broker in a sandbox with a network of its own; 0 means none.
	BrokerPort int `json:"broker_port,omitempty"`
}

// Forward connects a port of the loopback interface in a sandbox with a Unix socket outside. The
// folder of the socket must be visible in the sandbox.
type Forward struct {
	Port   int    `json:"port"`
	Socket string `json:"socket"` // absolute path
}

// Private contains data that must not be written to disk. It is sent over an inherited
// descriptor.
type Private struct {
	Env    []string       // the CLI's complete environment as NAME=VALUE; nothing is inherited
	Mask   []string       // values to mask in the log
	Broker *broker.Handed // nil means none; Start does not close its listener
}

// check rejects specs that cannot be started, or that would run without a limit by mistake.
func (s *Spec) check() error {
	switch {
	case !agented.ValidID("exec", string(s.Execution)):
		return agented.Errorf(agented.Invalid, "%q is not an execution's id", s.Execution)
	case s.Attempt < 1:
		return agented.Errorf(agented.Invalid, "attempt numbers start at 1")
	case !filepath.IsAbs(s.Path) || !filepath.IsAbs(s.Dir):
		return agented.Errorf(agented.Invalid, "program and working directory must be absolute paths")
	case len(s.Args) == 0:
		return agented.Errorf(agented.Invalid, "the arguments must begin with the program's name")
	case s.Sandbox != nil && (len(s.Sandbox.Command) == 0 || !filepath.IsAbs(s.Sandbox.Command[0])):
		return agented.Errorf(agented.Invalid, "the program of the sandbox must be an absolute path")
	case s.Sandbox != nil && (s.Sandbox.BrokerPort < 0 || s.Sandbox.BrokerPort > 65535):
		return agented.Errorf(agented.Invalid, "the port of the broker is not a port")
	case s.Sandbox != nil && s.Sandbox.Forward != nil && (s.Sandbox.Forward.Port < 1 || s.Sandbox.Forward.Port > 65535 || !filepath.IsAbs(s.Sandbox.Forward.Socket)):
		return agented.Errorf(agented.Invalid, "the sandbox forwards a port to the absolute path of a socket")
	case !slices.Contains([]agented.Capture{agented.CaptureFile, agented.CapturePipe, agented.CapturePTY}, s.Capture):
		return agented.Errorf(agented.Invalid, "unknown capture %q", s.Capture)
	case s.Timeout < 0 || s.Silence < 0 || s.Grace < 0 || s.OutputCap < 0 || s.MinFree < 0 || s.MaxMemory < 0 || s.MaxSwap < 0 || s.MaxProcesses < 0 || s.CPUWeight < 0 || s.MaxDisk < 0:
		return agented.Errorf(agented.Invalid, "a limit is negative")
	}
	for _, text := range append([]string{s.Path, s.Dir}, s.Args...) {
		if strings.ContainsRune(text, 0) {
			return agented.Errorf(agented.Invalid, "program, arguments and working directory must not contain a NUL byte")
		}
	}
	return nil
}

// ReadSpec reads the spec of a bundle. The error is fs.ErrNotExist if there is none.
func ReadSpec(bundle string) (Spec, error) {
	var s Spec
	err := readJSON(filepath.Join(bundle, specFile), &s)
	if err != nil {
		return s, fmt.Errorf("read attempt's spec: %w", err)
	}
	return s, nil
}

// handover is sent over the descriptor. It repeats Args, because JSON cannot represent every byte
// of an argument.
type handover struct {
	Args, Env, Mask []string
	Broker          []string // a broker.Config as JSON, or nothing
}

// maxHandover is the maximum size that a shim reads, in bytes: more than any kernel accepts for
// the start of a program, plus all secrets of a server.
const maxHandover = 64 << 20

// encode returns the data to send.
func (h *handover) encode() []byte { return encodeLists(h.Args, h.Env, h.Mask, h.Broker) }

// encodeLists returns the length of the data, then the lists. Bytes are unchanged.
func encodeLists(lists ...[]string) []byte {
	var b []byte
	for _, list := range lists {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for _, s := range list {
			b = binary.AppendUvarint(b, uint64(len(s)))
			b = append(b, s...)
		}
	}
	return append(binary.BigEndian.AppendUint64(nil, uint64(len(b))), b...)
}

// readHandover reads the output of encode. Incomplete data is an error.
func readHandover(r io.Reader) (*handover, error) {
	lists, err := readLists(r, 4)
	if err != nil {
		return nil, err
	}
	return &handover{Args: lists[0], Env: lists[1], Mask: lists[2], Broker: lists[3]}, nil
}

// readLists reads the output of encodeLists with a number of lists.
func readLists(r io.Reader, lists int) ([][]string, error) {
	var size [8]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, fmt.Errorf("read environment from the server: %w", err)
	}
	n := binary.BigEndian.Uint64(size[:])
	if n > maxHandover {
		return nil, errors.New("read environment from the server: too long")
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("read environment from the server: %w", err)
	}
	in := bytes.NewReader(b)
	out := make([][]string, lists)
	for i := range out {
		count, err := binary.ReadUvarint(in)
		if err != nil || count > uint64(in.Len()) {
			return nil, errors.New("read environment from the server: damaged")
		}
		for range count {
			n, err := binary.ReadUvarint(in)
			if err != nil || n > uint64(in.Len()) {
				return nil, errors.New("read environment from the server: damaged")
			}
			s := make([]byte, n)
			in.Read(s) // the length was checked
			out[i] = append(out[i], string(s))
		}
	}
	return out, nil
}

func readJSON(path string, into any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}
