//go:build linux

package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

// emit is the program of executions that print as fast as they can: stamped lines. It is this
// program again, so that every server runs the same program.
func emit(args []string) error {
	f := flag.NewFlagSet("emit", flag.ExitOnError)
	n := f.Int64("n", 1, "lines")
	size := f.Int("size", 100, "size of a line in bytes")
	gate := f.String("go", "", "start when a process opens this named pipe for writing")
	hold := f.Duration("hold", 0, "keep running for this time after the last line")
	f.Parse(args)
	if *gate != "" {
		// A named pipe: hundreds of processes wait here without any cost.
		g, err := os.Open(*gate)
		if err != nil {
			return err
		}
		defer g.Close()
	}
	out := bufio.NewWriterSize(os.Stdout, 64<<10)
	pad := strings.Repeat("x", max(0, *size-33))
	for i := int64(1); i <= *n; i++ {
		fmt.Fprintf(out, stampFormat+" %s\n", time.Now().UnixNano(), i, pad)
	}
	err := out.Flush()
	time.Sleep(*hold)
	return err
}
