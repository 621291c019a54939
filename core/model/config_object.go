package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"sort"
	"strconv"
)

// object reads the fields of one JSON object. A field that is absent or null leaves its destination alone;
// one of the wrong kind sets err, the first of which is kept, so that a parser reads like a list of
// fields and checks once. Every name asked for is remembered: what is left over is unknown.
type object struct {
	file   string
	prefix string // "rope_scaling." in a nested object
	fields map[string]json.RawMessage
	asked  map[string]bool
	err    error

	renamed map[string]string // what the file calls fields that are read under another name
}

func readObject(file, prefix string, data []byte) (*object, error) {
	o := &object{file: file, prefix: prefix, asked: map[string]bool{}}
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&o.fields); err != nil {
		return nil, o.syntaxError(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, &ConfigError{File: file, Reason: fmt.Sprintf("text after the JSON object, at byte %d", dec.InputOffset())}
	}
	if o.fields == nil {
		return nil, &ConfigError{File: file, Reason: "holds null, not a JSON object"}
	}
	return o, nil
}

func (o *object) syntaxError(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return &ConfigError{File: o.file, Reason: fmt.Sprintf("not JSON: %v at byte %d", err, syntax.Offset)}
	case errors.As(err, &kind):
		return &ConfigError{File: o.file, Reason: fmt.Sprintf("holds a JSON %s, not an object", kind.Value)}
	default: // an empty or cut-off file
		return &ConfigError{File: o.file, Reason: fmt.Sprintf("not JSON: %v", err)}
	}
}

// raw returns the first of the names that has a value, and that name.
func (o *object) raw(names ...string) (json.RawMessage, string) {
	for _, n := range names {
		o.asked[n] = true
	}
	for _, n := range names {
		if v, ok := o.fields[n]; ok && !bytes.Equal(bytes.TrimSpace(v), []byte("null")) {
			return v, n
		}
	}
	return nil, names[0]
}

func (o *object) has(name string) bool {
	v, _ := o.raw(name)
	return v != nil
}

func (o *object) fail(name string, value any, reason string) {
	if o.err == nil {
		o.err = &ConfigError{File: o.file, Field: o.prefix + name, Value: value, Reason: reason}
	}
}

// asWritten makes an error call a field what the file does.
func (o *object) asWritten(err error) error {
	var ce *ConfigError
	if errors.As(err, &ce) && o.renamed[ce.Field] != "" {
		ce.Field = o.renamed[ce.Field]
	}
	return err
}

func (o *object) wrongKind(name string, v json.RawMessage, want string) {
	o.fail(name, abbreviate(v), "must be "+want)
}

func (o *object) str(dst *string, names ...string) {
	v, name := o.raw(names...)
	if v != nil && json.Unmarshal(v, dst) != nil {
		o.wrongKind(name, v, "a string")
	}
}

func (o *object) boolean(dst *bool, name string) {
	v, _ := o.raw(name)
	if v != nil && json.Unmarshal(v, dst) != nil {
		o.wrongKind(name, v, "true or false")
	}
}

// number also takes a string that holds a number: to a YAML reader, 1e-5 is one.
func (o *object) number(dst *float64, name string) {
	v, _ := o.raw(name)
	if v == nil {
		return
	}
	text := string(bytes.TrimSpace(v))
	if len(text) > 1 && text[0] == '"' {
		text = text[1 : len(text)-1]
	}
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
		o.wrongKind(name, v, "a finite number")
		return
	}
	*dst = x
}

func (o *object) integer(dst *int, name string) {
	v, _ := o.raw(name)
	if v == nil {
		return
	}
	x, ok := parseInt(v)
	if !ok {
		o.wrongKind(name, v, "a whole number")
		return
	}
	*dst = x
}

// required is integer for a field that must be there.
func (o *object) required(dst *int, name string) {
	if !o.has(name) {
		o.fail(name, nil, "missing")
		return
	}
	o.integer(dst, name)
}

func (o *object) optionalInt(dst **int, name string) {
	if o.has(name) {
		var x int
		o.integer(&x, name)
		*dst = &x
	}
}

// integers reads one whole number or a list of them.
func (o *object) integers(dst *[]int, name string) {
	v, _ := o.raw(name)
	if v == nil {
		return
	}
	items := []json.RawMessage{v}
	if bytes.HasPrefix(bytes.TrimSpace(v), []byte("[")) && json.Unmarshal(v, &items) != nil {
		items = []json.RawMessage{v}
	}
	var out []int
	for _, item := range items {
		x, ok := parseInt(item)
		if !ok {
			o.wrongKind(name, v, "a whole number or a list of whole numbers")
			return
		}
		out = append(out, x)
	}
	*dst = out
}

// strs reads a list of strings; an empty list is nil.
func (o *object) strs(dst *[]string, name string) {
	v, _ := o.raw(name)
	if v == nil {
		return
	}
	var items []*string
	if json.Unmarshal(v, &items) != nil {
		o.wrongKind(name, v, "a list of strings")
		return
	}
	var out []string
	for _, s := range items {
		if s == nil {
			o.wrongKind(name, v, "a list of strings")
			return
		}
		out = append(out, *s)
	}
	*dst = out
}

// child opens a nested object; nil when it is absent or null, or not an object (err is set then).
func (o *object) child(name string) *object {
	v, _ := o.raw(name)
	if v == nil {
		return nil
	}
	c, err := readObject(o.file, o.prefix+name+".", v)
	if err != nil {
		o.wrongKind(name, v, "an object")
		return nil
	}
	return c
}

// refuseUnknown is the strict end of a parser: a field nobody asked for is an error that proposes the
// name it may have meant.
func (o *object) refuseUnknown() {
	var unknown, known []string
	for n := range o.fields {
		if !o.asked[n] {
			unknown = append(unknown, n)
		}
	}
	if len(unknown) == 0 {
		return
	}
	for n := range o.asked {
		known = append(known, n)
	}
	sort.Strings(unknown)
	reason := "unknown field"
	if close := closest(unknown[0], known, 1); len(close) > 0 {
		reason += fmt.Sprintf("; did you mean %q?", o.prefix+close[0])
	}
	o.fail(abbreviate([]byte(unknown[0])), nil, reason)
}

// adopt takes over a finished child's error.
func (o *object) adopt(c *object) {
	if c != nil && o.err == nil {
		o.err = c.err
	}
}

// parseInt takes 7 and 7.0 (some writers turn every number into a float), and refuses 7.5 and anything beyond
// the 53 bits that JSON numbers hold exactly everywhere.
func parseInt(v []byte) (int, bool) {
	v = bytes.TrimSpace(v)
	if x, err := strconv.ParseInt(string(v), 10, 64); err == nil {
		return int(x), x > -1<<53 && x < 1<<53
	}
	x, err := strconv.ParseFloat(string(v), 64)
	if err != nil || x != math.Trunc(x) || math.Abs(x) >= 1<<53 {
		return 0, false
	}
	return int(x), true
}

// abbreviate cuts what an error shows of a file to a readable length.
func abbreviate(v []byte) string {
	const most = 60
	if len(v) <= most {
		return string(bytes.ToValidUTF8(v, []byte("?")))
	}
	return string(bytes.ToValidUTF8(v[:most], []byte("?"))) + "..."
}
