// Package web holds the built user interface.
package web

import (
	"embed"
	"io/fs"
)

// The stub page dist/index.html is tracked, so that the program compiles
// without Node; a build of the interface puts its files into dist/app.
//
//go:embed all:dist
var dist embed.FS

// Dist returns the root of the interface's files, and whether the interface was
// built into the program. Without it, the only file is a page with the build
// command. A file may have compressed versions, NAME.gz and NAME.br.
func Dist() (files fs.FS, built bool) {
	root := "dist"
	if _, err := fs.Stat(dist, "dist/app/index.html"); err == nil {
		root, built = "dist/app", true
	}
	files, err := fs.Sub(dist, root)
	if err != nil {
		panic(err) // the folder is compiled in
	}
	return files, built
}
