//go:build !agshim || !linux

package main

// agshimProgram is empty in a program that was not built by make: then it is
// its own shim.
const agshimProgram = ""
