//go:build !agshim || !linux || (!amd64 && !arm64)

package main

// agshimProgram is empty in a program that was built without the tag agshim or
// for a platform without a separate shim: then the program is its own shim.
const agshimProgram = ""
