package main

import (
	"go/scanner"
	"go/token"
	"strings"
	"unicode/utf8"
)

// width is how many columns of code docs/site.css shows on a laptop, where a tab is tabWidth of them.
const width, tabWidth = 111, 4

// narrow breaks the comments and the lists of parameters of a declaration that are wider than a page.
func narrow(code string) string {
	starts := commentStarts(code)
	var out []string
	left, before := "", "" // of a comment above: what is to stand in the next line, with its margin
	for i, line := range append(strings.Split(code, "\n"), "") {
		start, has := starts[i]
		first, text := line, ""
		if has {
			first, text = line[:start], strings.TrimPrefix(line[start+len("//"):], " ")
		}
		alone := has && strings.TrimSpace(first) == "" && text != "" && strings.TrimSpace(text[:1]) != "" // not one that is indented
		joined := left != "" && alone && first == before
		switch {
		case joined:
			text = left + " " + text
		case left != "":
			out = append(out, before+"// "+left)
		}
		left = ""
		switch {
		case alone && (joined || columns(line) > width):
			lines := broken(first, first, text)
			out = append(out, lines[:len(lines)-1]...)
			left, before = strings.TrimPrefix(lines[len(lines)-1], first+"// "), first
		case has && !alone && strings.TrimSpace(first) != "" && columns(line) > width:
			out = append(out, broken(first, margin(first), text)...)
		case !has && columns(line) > width && strings.HasPrefix(line, "func "):
			out = append(out, strings.Join(wrapped(line, ", ", width-tabWidth), ",\n\t"))
		default:
			out = append(out, line)
		}
	}
	return strings.Join(out[:len(out)-1], "\n")
}

// commentStarts has where in which line a comment of the code begins.
func commentStarts(code string) map[int]int {
	starts := map[int]int{}
	file := token.NewFileSet().AddFile("", -1, len(code))
	var s scanner.Scanner
	s.Init(file, []byte(code), func(token.Position, string) {}, scanner.ScanComments)
	for {
		at, kind, text := s.Scan()
		if kind == token.EOF {
			return starts
		}
		if kind == token.COMMENT && strings.HasPrefix(text, "//") {
			place := file.Position(at)
			starts[place.Line-1] = place.Column - 1
		}
	}
}

// broken is a comment of several lines, of which the first stands behind something.
func broken(first, others, text string) []string {
	lines := wrapped(text, " ", width-columns(first)-len("// "))
	for i := range lines {
		lines[i] = others + "// " + lines[i]
	}
	lines[0] = first + strings.TrimPrefix(lines[0], others)
	return lines
}

// wrapped cuts a text where a separator stands into lines of a width, or of the width of a word that is wider.
func wrapped(text, separator string, width int) []string {
	var lines []string
	for i, word := range strings.Split(text, separator) {
		last := len(lines) - 1
		if i > 0 && columns(lines[last])+columns(separator)+columns(word) <= width {
			lines[last] += separator + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}

// margin is white space as wide as a text.
func margin(text string) string {
	tabs := len(text) - len(strings.TrimLeft(text, "\t"))
	return text[:tabs] + strings.Repeat(" ", utf8.RuneCountInString(text[tabs:]))
}

func columns(text string) int {
	return utf8.RuneCountInString(text) + (tabWidth-1)*strings.Count(text, "\t")
}
