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
)

// Version is that of the bundle and of the words on the control socket. A shim
// outlives upgrades of the server, so both sides ignore what they do not know.
const Version = 1

// shimName is what a shim is called in a process list. It must not hold the
// server's name, so that ending the server by name leaves the shims alone.
const shimName = "agshim"

// Names of the files in a bundle.
const (
	specFile    = "spec.json"
	lockFile    = "lock"
	begunFile   = "begun.json"
	childFile   = "child.json"
	stdinFile   = "stdin"
	stdoutFile  = "stdout"
	stderrFile  = "stderr"
	reserveFile = "reserve"
	socketFile  = "ctl.sock"
	exitFile    = "exit.json"
	logFile     = "shim.log"
)

// Defaults of a Spec's limits.
const (
	DefaultGrace     = 10 * time.Second
	DefaultOutputCap = 1 << 30
)

// Spec says what a shim runs and within which limits. It becomes spec.json, so
// it never holds environment or secrets.
type Spec struct {
	Version   int                 `json:"v"` // set by Start
	Execution agented.ExecutionID `json:"execution"`
	Trigger   agented.TriggerID   `json:"trigger,omitempty"`
	Attempt   int                 `json:"attempt"`
	FirstSeq  agented.Seq         `json:"first_seq"` // the log's last number when the attempt was made, plus one

	Path    string          `json:"path"` // of the program, absolute
	Args    []string        `json:"args"` // Args[0] is the program's name
	Dir     string          `json:"dir"`  // working directory, absolute
	Capture agented.Capture `json:"capture"`
	Stdin   bool            `json:"stdin"` // there is a file for stdin; otherwise it is /dev/null

	Timeout   time.Duration `json:"timeout"`    // from the CLI's start; 0 is none
	Silence   time.Duration `json:"silence"`    // without a byte on any stream; 0 is none
	Grace     time.Duration `json:"grace"`      // between SIGTERM and SIGKILL; 0 is DefaultGrace
	OutputCap int64         `json:"output_cap"` // bytes printed; 0 is DefaultOutputCap
	MinFree   int64         `json:"min_free"`   // bytes free on the log's disk; 0 is no guard
	BootID    string        `json:"boot_id"`    // set by Start; see bootID
	CreatedAt time.Time     `json:"created_at"`
}

// Private is what the shim must know and the disk must not. It goes over an
// inherited descriptor.
type Private struct {
	Env  []string // the CLI's complete environment, NAME=VALUE; nothing is inherited
	Mask []string // values that must not appear in the log
}

// check refuses what could not be started or would run without a bound by
// mistake.
func (s *Spec) check() error {
	switch {
	case !agented.ValidID("exec", string(s.Execution)):
		return agented.Errorf(agented.Invalid, "%q is not an execution's id", s.Execution)
	case s.Attempt < 1:
		return agented.Errorf(agented.Invalid, "attempts count from 1")
	case !filepath.IsAbs(s.Path) || !filepath.IsAbs(s.Dir):
		return agented.Errorf(agented.Invalid, "program and working directory must be absolute paths")
	case len(s.Args) == 0:
		return agented.Errorf(agented.Invalid, "the arguments must begin with the program's name")
	case !slices.Contains([]agented.Capture{agented.CaptureFile, agented.CapturePipe, agented.CapturePTY}, s.Capture):
		return agented.Errorf(agented.Invalid, "no capture %q", s.Capture)
	case s.Timeout < 0 || s.Silence < 0 || s.Grace < 0 || s.OutputCap < 0 || s.MinFree < 0:
		return agented.Errorf(agented.Invalid, "a limit is below zero")
	}
	for _, text := range append([]string{s.Path, s.Dir}, s.Args...) {
		if strings.ContainsRune(text, 0) {
			return agented.Errorf(agented.Invalid, "a NUL byte cannot be part of a program's name, arguments or directory")
		}
	}
	return nil
}

// ReadSpec reads the spec of a bundle. The error is fs.ErrNotExist when there
// is none.
func ReadSpec(bundle string) (Spec, error) {
	var s Spec
	err := readJSON(filepath.Join(bundle, specFile), &s)
	if err != nil {
		return s, fmt.Errorf("read attempt's spec: %w", err)
	}
	return s, nil
}

// handover is what goes over the descriptor. Args are repeated there because
// JSON cannot hold every byte that an argument can.
type handover struct {
	Args, Env, Mask []string
}

// maxHandover bounds what a shim reads: more than any kernel lets a program be
// started with, and all the secrets that a server may hold.
const maxHandover = 64 << 20

// encode returns the length of what follows, then three lists of strings.
// Bytes stay as they are.
func (h *handover) encode() []byte {
	var b []byte
	for _, list := range [][]string{h.Args, h.Env, h.Mask} {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for _, s := range list {
			b = binary.AppendUvarint(b, uint64(len(s)))
			b = append(b, s...)
		}
	}
	return append(binary.BigEndian.AppendUint64(nil, uint64(len(b))), b...)
}

// readHandover reads what encode wrote. A sender that died on the way is an
// error.
func readHandover(r io.Reader) (*handover, error) {
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
	var h handover
	for _, list := range []*[]string{&h.Args, &h.Env, &h.Mask} {
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
			in.Read(s) // it has that many
			*list = append(*list, string(s))
		}
	}
	return &h, nil
}

func readJSON(path string, into any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}
