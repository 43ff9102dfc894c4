// Package web holds the built user interface.
package web

import (
	"embed"
	"io/fs"
)

// The stub page dist/index.html is tracked, so that the program compiles
// without Node; a build of the interface replaces it.
//
//go:embed all:dist
var dist embed.FS

// Dist is the root of the interface's files: index.html and what it needs.
func Dist() fs.FS {
	sub, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // the folder is compiled in
	}
	return sub
}
