package pool

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// poison fills memory that must not be read: uninitialised blocks and released ones. Four of it are a float32 NaN.
const poison = 0xFF

// stack is a call stack as program counters, cheap to take and turned into names only when somebody asks.
type stack []uintptr

// callers takes the stack of whoever called into this package.
func callers() *stack {
	pcs := make(stack, 24)
	pcs = pcs[:runtime.Callers(2, pcs)]
	return &pcs
}

// lines formats the stack, one "function (file:line)" a line, from the first frame outside the methods of this package.
func (s *stack) lines() []string {
	if s == nil {
		return nil
	}
	var out []string
	frames := runtime.CallersFrames(*s)
	for {
		f, more := frames.Next()
		if inside := strings.Contains(f.Function, "/core/pool.(*"); !inside || len(out) > 0 {
			out = append(out, fmt.Sprintf("%s (%s:%d)", f.Function, f.File, f.Line))
		}
		if !more {
			return out
		}
	}
}

// sites are the places in a block's life.
type sites struct {
	allocated *stack
	released  atomic.Pointer[stack] // the last Release
}

// registry holds the live blocks of a pool in debug mode.
type registry struct {
	mu   sync.Mutex
	live map[*Block]struct{}
}

func (r *registry) add(b *Block) {
	b.sites = &sites{allocated: callers()}
	r.mu.Lock()
	r.live[b] = struct{}{}
	r.mu.Unlock()
}

func (r *registry) remove(b *Block) {
	b.sites.released.Store(callers())
	r.mu.Lock()
	delete(r.live, b)
	r.mu.Unlock()
}

// Leak is a block that was not released yet.
type Leak struct {
	Tag   string   // what the block is for
	Bytes int      // as asked for
	Refs  int      // references held
	Stack []string // of the Alloc, innermost first: "function (file:line)"
}

// String has the tag, the size, the references and the stack of the allocation.
func (l Leak) String() string {
	return fmt.Sprintf("%q: %d bytes, %d references, allocated at\n\t%s", l.Tag, l.Bytes, l.Refs, strings.Join(l.Stack, "\n\t"))
}

// Leaks lists the live blocks, largest first, with the places of their allocation. It needs debug mode; without it the list is nil
// and Stats().LiveBlocks says only how many there are.
func (p *HybridMemoryPool) Leaks() []Leak {
	if p.registry == nil {
		return nil
	}
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	leaks := make([]Leak, 0, len(p.registry.live))
	for b := range p.registry.live {
		leaks = append(leaks, Leak{b.tag, len(b.data), int(b.refs.Load()), b.sites.allocated.lines()})
	}
	slices.SortFunc(leaks, func(a, b Leak) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Tag, b.Tag))
	})
	return leaks
}

// UseError is the panic of a block that is touched after its last Release: a mistake in the program, never in its input.
type UseError struct {
	Tag   string // the block's name
	Bytes int    // as asked for
	What  string // "released twice", "used after its last Release", ...

	// Debug mode only; innermost first, as "function (file:line)".
	Allocated, Released, Here []string
}

// Error has the block, what was done with it, and in debug mode the stacks of its allocation, its last release and this use.
func (e *UseError) Error() string {
	var s strings.Builder
	fmt.Fprintf(&s, "pool: block %q (%d bytes) %s", e.Tag, e.Bytes, e.What)
	if e.Allocated == nil {
		fmt.Fprintf(&s, "; run with %s=1 to see where", EnvDebug)
	}
	for _, part := range []struct {
		name  string
		lines []string
	}{{"allocated at", e.Allocated}, {"released at", e.Released}, {"and now at", e.Here}} {
		if part.lines != nil {
			fmt.Fprintf(&s, "\n%s\n\t%s", part.name, strings.Join(part.lines, "\n\t"))
		}
	}
	return s.String()
}

func (b *Block) misuse(what string) {
	e := &UseError{Tag: b.tag, Bytes: len(b.data), What: what}
	if b.sites != nil {
		e.Allocated, e.Released, e.Here = b.sites.allocated.lines(), b.sites.released.Load().lines(), callers().lines()
	}
	panic(e)
}

// fill sets every byte of b to v.
func fill(b []byte, v byte) {
	if len(b) == 0 {
		return
	}
	b[0] = v
	for done := 1; done < len(b); done *= 2 {
		copy(b[done:], b[:done])
	}
}
