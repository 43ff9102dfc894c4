package term

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
)

// Await returns the result of read, or the error of ctx as soon as ctx ends. A blocking read
// cannot be cancelled, so it is then abandoned and the command exits.
func Await[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		v, err := read()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// ReadStdin reads standard input to its end. More than limit bytes are an error that names what
// was read; a limit of 0 means none.
func ReadStdin(ctx context.Context, what string, limit int) ([]byte, error) {
	b, err := Await(ctx, func() ([]byte, error) {
		var r io.Reader = os.Stdin
		if limit > 0 {
			r = io.LimitReader(r, int64(limit)+1)
		}
		return io.ReadAll(r)
	})
	switch {
	case ctx.Err() != nil:
		endPrompt()
		return nil, ctx.Err()
	case err != nil:
		return nil, fmt.Errorf("read standard input: %w", err)
	case limit > 0 && len(b) > limit:
		return nil, agented.Errorf(agented.Invalid, "%s on standard input exceeds the limit of %d bytes: shorten it", what, limit)
	}
	return b, nil
}

// ToUTF8 converts external input to UTF-8, because JSON cannot carry other bytes. Invalid
// UTF-8 is read as Latin-1, with a notice.
func ToUTF8(what string, b []byte) string {
	text, n := fromLatin1(b)
	if n > 0 {
		fmt.Fprintf(os.Stderr, "agented: %s is not valid UTF-8: %s read as Latin-1 (ISO 8859-1); if that is wrong, convert the input, for example with iconv\n",
			what, format.Plural(n, "byte is", "bytes are"))
	}
	return text
}

// fromLatin1 converts each byte of b that is not part of valid UTF-8 from Latin-1, and returns
// the number of converted bytes.
func fromLatin1(b []byte) (text string, n int) {
	if utf8.Valid(b) {
		return string(b), 0
	}
	var out strings.Builder
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		if r == utf8.RuneError && size == 1 {
			r = rune(b[0])
			n++
		}
		out.WriteRune(r)
		b = b[size:]
	}
	return out.String(), n
}

// ReadFile reads a file, which may be a pipe without a writer.
func ReadFile(ctx context.Context, path string) ([]byte, error) {
	return Await(ctx, func() ([]byte, error) { return os.ReadFile(path) })
}

// LineReader reads standard input line by line.
type LineReader struct{ in *bufio.Reader }

// NewLineReader returns a reader of standard input.
func NewLineReader() *LineReader { return &LineReader{bufio.NewReaderSize(os.Stdin, 64<<10)} }

// Next returns the next line without its line ending, and io.EOF after the last one. A line of
// more than limit bytes is an error.
func (l *LineReader) Next(ctx context.Context, limit int) (string, error) {
	line, err := Await(ctx, func() (string, error) {
		var b bytes.Buffer
		for {
			part, err := l.in.ReadSlice('\n')
			b.Write(part)
			switch {
			case b.Len() > limit+2:
				return "", agented.Errorf(agented.Invalid, "a line on standard input exceeds the limit of %d bytes: shorten it", limit)
			case errors.Is(err, bufio.ErrBufferFull):
				continue
			case errors.Is(err, io.EOF) && b.Len() > 0:
				err = nil
			}
			return b.String(), err
		}
	})
	switch {
	case ctx.Err() != nil:
		endPrompt()
		return "", ctx.Err()
	case err != nil && !errors.Is(err, io.EOF) && agented.KindOf(err) == agented.Internal:
		return "", fmt.Errorf("read standard input: %w", err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), err
}

// endPrompt terminates the line of a prompt that a signal interrupted.
func endPrompt() {
	if IsTerminal(os.Stdin) && IsTerminal(os.Stderr) {
		fmt.Fprintln(os.Stderr)
	}
}

// AskSecret prompts on the terminal for a line and does not echo it. It restores the echo before
// it returns, also after a signal.
func AskSecret(ctx context.Context, prompt string) ([]byte, error) {
	// These signals would end the program while the echo is off.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGQUIT, syscall.SIGHUP)
	defer stop()
	fd := int(os.Stdin.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("read the state of the terminal: %w", err)
	}
	fmt.Fprint(os.Stderr, prompt)
	b, err := Await(ctx, func() ([]byte, error) { return term.ReadPassword(fd) })
	fmt.Fprintln(os.Stderr)
	if ctx.Err() != nil {
		return nil, errors.Join(ctx.Err(), term.Restore(fd, before))
	}
	if err != nil {
		return nil, fmt.Errorf("read the terminal: %w", err)
	}
	return b, nil
}
