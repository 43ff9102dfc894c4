//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: figures are taken from /proc, so they need Linux")
	os.Exit(1)
}
