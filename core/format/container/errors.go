package container

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ErrFormat is the root of every complaint about a file's content. Each way a
// file can be wrong has its own kind below it: errors.Is works with both.
var ErrFormat = errors.New("invalid file")

// What can be wrong with a file of any format, and with a request to a valid one.
var (
	ErrNotRegular    = NewKind("not a regular file")
	ErrTensorMissing = NewKind("no such tensor")
	ErrMismatch      = NewKind("tensor is not what the caller needs")
	ErrUnreadable    = NewKind("mapped file cannot be read any more")
)

// ErrClosed is returned for a file after Close. It is a mistake of the caller,
// not of the file, and so no ErrFormat.
var ErrClosed = errors.New("file is closed")

// NewKind makes a way in which a file can be wrong; it matches ErrFormat.
func NewKind(text string) error { return &kind{text} }

type kind struct{ text string }

func (k *kind) Error() string { return k.text }
func (*kind) Unwrap() error   { return ErrFormat }

// Error says what is wrong and where: the file, the tensor and the field (both
// may be empty), what was found there and what should have been. Kind was made
// by NewKind and is what errors.Is sees.
type Error struct {
	Kind            error
	Path            string // of the file
	Tensor, Field   string // where in the file
	Found, Expected string // what is there, and what should be
}

// Error renders the parts that are set, in one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Kind.Error())
	if e.Path != "" {
		b.WriteString(": " + e.Path)
	}
	if e.Tensor != "" {
		b.WriteString(": tensor " + Quote(e.Tensor))
	}
	if e.Field != "" {
		b.WriteString(": " + printable(e.Field))
	}
	if e.Found != "" {
		b.WriteString(": found " + printable(e.Found))
	}
	if e.Expected != "" {
		b.WriteString(", expected " + printable(e.Expected))
	}
	return b.String()
}

// Unwrap gives the kind.
func (e *Error) Unwrap() error { return e.Kind }

// Worded is an error that matches kind with errors.Is and says nothing but the
// text: for paths, of which "file does not exist" or "invalid option" says less.
func Worded(kind error, format string, args ...any) error {
	return &worded{kind, fmt.Sprintf(format, args...)}
}

type worded struct {
	kind error
	text string
}

func (w *worded) Error() string { return w.text }
func (w *worded) Unwrap() error { return w.kind }

// longest is the length to which text from a file is cut in messages: a
// hostile file may hold names of many megabytes.
const longest = 200

// Quote quotes text from a file for a message, cut to a readable length.
func Quote(s string) string {
	if len(s) > longest {
		return strconv.Quote(s[:longest]) + "..."
	}
	return strconv.Quote(s)
}

// Clip cuts a rendered value (a long shape) to a readable length.
func Clip(s string) string {
	if len(s) > longest {
		return printable(s[:longest]) + "..."
	}
	return printable(s)
}

// printable escapes what is no visible character: a name in a file may hold a
// line break, or what a terminal takes for an order.
func printable(s string) string {
	var b strings.Builder
	for i, r := range s {
		_, size := utf8.DecodeRuneInString(s[i:])
		if strconv.IsPrint(r) && (r != utf8.RuneError || size > 1) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.Quote(s[i : i+size])
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}
