// Command bench measures the built program from outside, together with the programs it is
// compared with, in the same run and on the same machine. It writes a table in Markdown to
// standard output, all figures as JSON, and plots as SVG.
//
// make bench runs it; docs/contributing/performance.md explains the figures.
package main
