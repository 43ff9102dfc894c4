// Command bench measures the built program from outside, and beside it, in the
// same run and on the same machine, what it is compared with. It writes a table
// in Markdown to standard output, all figures as JSON, and plots as SVG.
//
// make bench runs it; docs/performance.md says what the figures mean.
package main
