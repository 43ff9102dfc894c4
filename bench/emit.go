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

// A stamp stands in each line that a measurement follows: when the line was
// printed, and its number from 1.
const stampFormat = "t=%019d.%09d"

// emit is what executions run: it prints stamped lines. It is this program
// again, so that every server runs the very same thing.
func emit(args []string) error {
	f := flag.NewFlagSet("emit", flag.ExitOnError)
	n := f.Int64("n", 1, "lines")
	rate := f.Float64("rate", 0, "lines a second; 0 is as fast as it can")
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
	began := time.Now()
	for i := int64(1); i <= *n; i++ {
		if *rate > 0 {
			time.Sleep(time.Until(began.Add(time.Duration(float64(i) / *rate * float64(time.Second)))))
		}
		fmt.Fprintf(out, stampFormat+" %s\n", time.Now().UnixNano(), i, pad)
		if *rate > 0 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
	err := out.Flush()
	time.Sleep(*hold)
	return err
}
