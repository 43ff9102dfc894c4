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

// emit is what executions run that print as fast as they can: stamped lines. It
// is this program again, so that every server runs the very same thing.
func emit(args []string) error {
	f := flag.NewFlagSet("emit", flag.ExitOnError)
	n := f.Int64("n", 1, "lines")
	size := f.Int("size", 100, "bytes of a line")
	gate := f.String("go", "", "begin when somebody writes to this named pipe")
	hold := f.Duration("hold", 0, "stay this long after the last line")
	f.Parse(args)
	if *gate != "" {
		// A named pipe: hundreds wait here, and must cost nothing meanwhile.
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
