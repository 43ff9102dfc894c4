// Package diffview prints what an execution changed: a patch, or a list of files with counts.
package diffview

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/term"
)

// clean replaces control characters, and those that change the direction of text, which could make
// a line look like another one. It keeps tabs.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return r
		case r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069:
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// Patch copies a patch to w. On a terminal it is coloured, and control characters are replaced.
func Patch(w *os.File, patch io.Reader) error {
	if !term.IsTerminal(w) {
		_, err := io.Copy(w, patch)
		return err
	}
	return coloured(w, patch, func(colour, s string) string { return term.Paint(w, colour, s) })
}

// coloured prints a patch for a terminal.
func coloured(w io.Writer, patch io.Reader, paint func(colour, s string) string) error {
	out := bufio.NewWriter(w)
	in := bufio.NewReaderSize(patch, 64<<10)
	head := true // lines before the first hunk of a file
	for {
		line, err := in.ReadString('\n')
		if line != "" {
			text := clean(strings.TrimSuffix(line, "\n"))
			switch {
			case strings.HasPrefix(text, "diff --git "):
				head = true
				text = paint(term.Yellow, text)
			case strings.HasPrefix(text, "@@ "):
				head = false
				text = paint(term.Cyan, text)
			case head:
				text = paint(term.Faint, text)
			case strings.HasPrefix(text, "+"):
				text = paint(term.Green, text)
			case strings.HasPrefix(text, "-"):
				text = paint(term.Red, text)
			}
			if _, err := fmt.Fprintln(out, text); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return out.Flush()
		}
		if err != nil {
			return errors.Join(err, out.Flush())
		}
	}
}

// Names prints the path of each changed file on one line.
func Names(w io.Writer, c *client.Changes) error {
	out := bufio.NewWriter(w)
	for i := range c.Files {
		fmt.Fprintln(out, clean(c.Files[i].Path))
	}
	return out.Flush()
}

const (
	maxName = 60 // columns of a path
	maxBar  = 30 // columns of the bar
)

// Stat prints a list of files with counts, the commits, and the artifacts.
func Stat(w *os.File, c *client.Changes) error {
	return stat(w, c, func(colour, s string) string { return term.Paint(w, colour, s) })
}

func stat(w io.Writer, c *client.Changes, paint func(colour, s string) string) error {
	out := bufio.NewWriter(w)
	for _, commit := range c.Commits {
		fmt.Fprintf(out, "%s %s\n", paint(term.Yellow, commit.ID[:min(12, len(commit.ID))]), clean(commit.Subject))
	}
	width, most := 0, 1
	for i := range c.Files {
		width = min(max(width, utf8.RuneCountInString(name(&c.Files[i]))), maxName)
		most = max(most, c.Files[i].Added+c.Files[i].Removed)
	}
	for i := range c.Files {
		f := &c.Files[i]
		n := name(f)
		if r := []rune(n); len(r) > maxName {
			n = "…" + string(r[len(r)-maxName+1:])
		}
		pad := strings.Repeat(" ", width-utf8.RuneCountInString(n))
		fmt.Fprintf(out, " %s %s%s | %s\n", letter(f.Status), n, pad, counts(f, most, paint))
	}
	fmt.Fprintf(out, " %s\n", Summary(c.FileCount, c.Added, c.Removed))
	for i, a := range c.Artifacts {
		fmt.Fprintf(out, " artifact %d: %s, %d bytes\n", i, clean(a.Path), a.Size)
	}
	if c.Reason != "" {
		fmt.Fprintf(out, " %s\n", paint(term.Yellow, clean(c.Reason)))
	}
	return out.Flush()
}

// Summary formats counts, as in "3 files +40 −2".
func Summary(files, added, removed int) string {
	noun := "files"
	if files == 1 {
		noun = "file"
	}
	return fmt.Sprintf("%d %s +%d −%d", files, noun, added, removed)
}

func name(f *client.ChangedFile) string {
	if f.Old != "" {
		return clean(f.Old + " → " + f.Path)
	}
	return clean(f.Path)
}

// letter returns the letter that git uses for a status.
func letter(status string) string {
	switch status {
	case "added":
		return "A"
	case "deleted":
		return "D"
	case "renamed":
		return "R"
	case "type_changed":
		return "T"
	}
	return "M"
}

func counts(f *client.ChangedFile, most int, paint func(colour, s string) string) string {
	if f.Binary {
		size := func(n *int64) string {
			if n == nil {
				return "0"
			}
			return fmt.Sprint(*n)
		}
		return "binary, " + size(f.OldSize) + " → " + size(f.Size) + " bytes"
	}
	bar := func(n int) int {
		if n > 0 && most > maxBar {
			return max(1, n*maxBar/most)
		}
		return n
	}
	return fmt.Sprintf("%d %s%s", f.Added+f.Removed, paint(term.Green, strings.Repeat("+", bar(f.Added))), paint(term.Red, strings.Repeat("-", bar(f.Removed))))
}
