package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// The text of both files, and the function that is being written.
var (
	out, stubs bytes.Buffer
	params     map[string]param
	freeVecs   []vec
	freeRegs   []reg
	labels     int
)

// vec is a vector register of four 32-bit lanes, reg a general one.
type (
	vec int
	reg int
)

func (r reg) String() string { return fmt.Sprintf("R%d", int(r)) }

type param struct {
	typ    string
	offset int
}

// text begins a function: its signature is that of Go, its doc lines go to the stubs file.
func text(name, list, result string, doc ...string) {
	var size int
	params, size = layout(list)
	if result != "" {
		size = (size+7)&^7 + typeSize(result)
		params["ret"] = param{result, size - typeSize(result)}
	}
	freeVecs, freeRegs = freeVecs[:0], freeRegs[:0]
	for i := 31; i >= 0; i-- {
		freeVecs = append(freeVecs, vec(i))
	}
	for i := 26; i >= 0; i-- { // the others belong to the linker, the system and Go
		if i < 16 || i > 18 {
			freeRegs = append(freeRegs, reg(i))
		}
	}
	labels = 0
	signature := fmt.Sprintf("func %s(%s) %s", name, list, result)
	signature = strings.TrimSpace(signature)
	fmt.Fprintf(&out, "\n// %s\nTEXT ·%s(SB), NOSPLIT, $0-%d\n", signature, name, size)
	fmt.Fprintf(&stubs, "\n// %s: %s\n//\n//go:noescape\n%s\n", name, strings.Join(doc, "\n// "), signature)
}

// layout places the parameters of a list such as "dst, x *float32, n int" in the caller's frame.
func layout(list string) (params map[string]param, size int) {
	params = map[string]param{}
	var group []string
	for _, p := range strings.Split(list, ",") {
		f := strings.Fields(p)
		if len(f) == 0 {
			continue
		}
		group = append(group, f[0])
		if len(f) == 1 {
			continue
		}
		for _, name := range group {
			n := typeSize(f[1])
			size = (size + n - 1) &^ (n - 1)
			params[name] = param{f[1], size}
			size += n
		}
		group = nil
	}
	return params, size
}

func typeSize(typ string) int {
	if typ == "float32" {
		return 4
	}
	return 8
}

func has(name string) bool { _, ok := params[name]; return ok }

// line writes an instruction in the syntax of Go's assembler.
func line(format string, args ...any) { fmt.Fprintf(&out, "\t"+format+"\n", args...) }

// word writes an instruction that Go's assembler may not know, with its name in ARM's syntax.
func word(bits uint32, format string, args ...any) {
	fmt.Fprintf(&out, "\tWORD $0x%08x // %s\n", bits, fmt.Sprintf(format, args...))
}

func newVec() vec {
	if len(freeVecs) == 0 {
		panic("neon: out of vector registers")
	}
	v := freeVecs[len(freeVecs)-1]
	freeVecs = freeVecs[:len(freeVecs)-1]
	return v
}

func newVecs(n int) []vec {
	v := make([]vec, n)
	for i := range v {
		v[i] = newVec()
	}
	return v
}

// release gives registers back.
func release(v ...vec) {
	for _, r := range slices.Backward(v) {
		freeVecs = append(freeVecs, r)
	}
}

func newReg() reg {
	if len(freeRegs) == 0 {
		panic("neon: out of registers")
	}
	r := freeRegs[len(freeRegs)-1]
	freeRegs = freeRegs[:len(freeRegs)-1]
	return r
}

// load puts a pointer or an integer parameter in a register.
func load(name string) reg {
	r := newReg()
	line("MOVD %s+%d(FP), %v", name, offset(name), r)
	return r
}

func offset(name string) int {
	p, ok := params[name]
	if !ok {
		panic("neon: no parameter " + name)
	}
	return p.offset
}

// loadBytes is load for a number of elements of 1<<shift bytes.
func loadBytes(name string, shift int) reg {
	r := load(name)
	line("LSL $%d, %v, %v", shift, r, r)
	return r
}

// splat fills a vector with a float32 parameter.
func splat(name string) vec {
	v := newVec()
	line("FMOVS %s+%d(FP), F%d", name, offset(name), int(v))
	dup(v, v, 0)
	return v
}

func add(r reg, bytes int)    { line("ADD $%d, %v, %v", bytes, r, r) }
func addReg(r, by reg)        { line("ADD %v, %v, %v", by, r, r) }
func newLabel(s string) label { labels++; return label(fmt.Sprintf("%s%d", s, labels)) }
func ret()                    { line("RET") }

type label string

func (l label) here() { fmt.Fprintf(&out, "%s:\n", string(l)) }

// loop repeats body while n, which is above 0, goes down to 0 in steps.
func loop(n reg, step int, body func()) {
	l := newLabel("loop")
	l.here()
	body()
	line("SUBS $%d, %v, %v", step, n, n)
	line("BNE %s", string(l))
}

// unlessZero leaves body out when r is 0.
func unlessZero(r reg, body func()) {
	l := newLabel("skip")
	line("CBZ %v, %s", r, string(l))
	body()
	l.here()
}

// pointers gives n registers that lie stride bytes apart, beginning with base, which it takes over.
func pointers(base, stride reg, n int) []reg {
	p := []reg{base}
	for i := 1; i < n; i++ {
		r := newReg()
		line("ADD %v, %v, %v", stride, p[i-1], r)
		p = append(p, r)
	}
	return p
}
