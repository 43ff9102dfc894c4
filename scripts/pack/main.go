// Command pack compresses a program that is embedded in another one.
//
//	pack FILE   writes FILE.zst, and removes FILE
package main

import (
	"fmt"
	"os"

	"github.com/klauspost/compress/zstd"
)

// window is the size of the window in bytes. A program at rest must not hold a large buffer for it.
const window = 1 << 20

func main() {
	if err := pack(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func pack(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window))
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".zst", enc.EncodeAll(text, nil), 0o644); err != nil {
		return err
	}
	return os.Remove(path)
}
