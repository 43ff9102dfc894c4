package shim

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/broker"
)

// systemStandIns exist on this operating system only.
var systemStandIns = map[string]func(args []string) int{}

// standIn is a program that acts according to its arguments.
func standIn(args []string) int {
	number := func(i int) int {
		n, err := strconv.Atoi(args[i])
		if err != nil {
			panic(err)
		}
		return n
	}
	if f := systemStandIns[args[0]]; f != nil {
		return f(args[1:])
	}
	switch args[0] {
	case "environment": // prints its environment
		env := os.Environ()
		slices.Sort(env)
		out := json.NewEncoder(os.Stdout)
		_ = out.Encode(map[string]any{"args": args, "env": env})
	case "descriptors": // prints the open descriptors
		for fd := range 256 {
			var st unix.Stat_t
			if unix.Fstat(fd, &st) == nil && !runtimes(fd) {
				fmt.Println(fd)
			}
		}
	case "chatty": // N lines of a length, numbered, as fast as it can
		w := bufio.NewWriterSize(os.Stdout, 1<<16)
		pad := bytes.Repeat([]byte{'x'}, number(2)-9)
		for i := range number(1) {
			fmt.Fprintf(w, "%08d%s\n", i+1, pad)
		}
		w.Flush()
	case "ticking": // numbered lines with the time, one write each, until killed or N
		for i := range number(1) {
			fmt.Fprintf(os.Stdout, "%d %d\n", i+1, time.Now().UnixNano())
			if pause := number(2); pause > 0 {
				time.Sleep(time.Duration(pause) * time.Microsecond)
			}
		}
	case "long": // one line of N bytes
		w := bufio.NewWriterSize(os.Stdout, 1<<16)
		for i := range number(1) {
			w.WriteByte('a' + byte(i%26))
		}
		w.WriteByte('\n')
		w.Flush()
	case "split": // a text in pieces, each its own write
		for _, piece := range args[1:] {
			os.Stdout.WriteString(piece)
			time.Sleep(2 * time.Millisecond)
		}
	case "flood": // prints N MiB as fast as it can and ignores SIGTERM
		signal.Ignore(unix.SIGTERM)
		line := append(bytes.Repeat([]byte{'x'}, 1<<10-1), '\n')
		for range number(1) << 10 {
			if _, err := os.Stdout.Write(line); err != nil {
				return 1
			}
		}
	case "deaf": // ignores SIGTERM
		signal.Ignore(unix.SIGTERM)
		fmt.Println("ready")
		time.Sleep(time.Hour) // select {} would be a deadlock without cgo
	case "signals": // prints which signals are ignored or blocked
		b, _ := os.ReadFile("/proc/self/status")
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(line, "SigIgn") || strings.HasPrefix(line, "SigBlk") {
				os.Stdout.WriteString(line)
			}
		}
	case "call": // calls a model as its environment says and prints the answer as it arrives
		req, err := http.NewRequest(http.MethodPost, os.Getenv("ANTHROPIC_BASE_URL")+"/v1/messages", strings.NewReader("{}"))
		if err != nil {
			panic(err)
		}
		req.Header.Set("X-Api-Key", os.Getenv("ANTHROPIC_API_KEY"))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		defer res.Body.Close()
		if _, err := io.Copy(os.Stdout, res.Body); err != nil || res.StatusCode != http.StatusOK {
			fmt.Println(res.Status, err)
			return 1
		}
	case "now": // prints its start time
		fmt.Println(time.Now().UnixNano())
	case "server": // starts an attempt and keeps running
		var r struct {
			Bundle   string
			Spec     Spec
			Env      []string
			Secret   string // of the API at Upstream; empty means no broker
			Upstream string
		}
		if err := json.Unmarshal([]byte(args[1]), &r); err != nil {
			panic(err)
		}
		p := Private{Env: r.Env}
		if r.Secret != "" {
			p = withBroker(p, r.Upstream, r.Secret)
		}
		if _, err := Start(r.Bundle, r.Spec, p, nil); err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println("started")
		select {}
	}
	return 0
}

// runtimes reports whether the Go runtime opened the descriptor for itself.
func runtimes(fd int) bool {
	to, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	return err == nil && (strings.HasPrefix(to, "anon_inode:[event") || strings.HasPrefix(to, "/sys/fs/cgroup"))
}

// withBroker adds a broker for Claude Code to an attempt.
func withBroker(p Private, upstream, secret string) Private {
	return withBrokerAt(p, upstream, secret, 0)
}

// withBrokerAt is like withBroker, with a port in a sandbox.
func withBrokerAt(p Private, upstream, secret string, port int) Private {
	env := map[string]string{"ANTHROPIC_API_KEY": secret, "ANTHROPIC_BASE_URL": upstream}
	handed, why, err := broker.Setup(broker.Request{Backend: agented.BackendClaude, Env: env, Port: port, Credentials: true})
	if err != nil || handed == nil {
		panic(fmt.Sprint(why, err))
	}
	for name, value := range env {
		p.Env = append(p.Env, name+"="+value)
	}
	p.Broker = handed
	return p
}
