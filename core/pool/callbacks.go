package pool

import (
	"slices"
	"sync"
	"sync/atomic"
)

// callbacks is a list that allocations read without a lock and registrations replace.
type callbacks[T any] struct {
	mu   sync.Mutex
	list atomic.Pointer[[]*T]
}

// add puts c into the list; remove takes it out again.
func (cs *callbacks[T]) add(c *T) (remove func()) {
	cs.change(func(l []*T) []*T { return append(l, c) })
	return func() {
		cs.change(func(l []*T) []*T { return slices.DeleteFunc(l, func(v *T) bool { return v == c }) })
	}
}

func (cs *callbacks[T]) change(f func([]*T) []*T) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	list := f(slices.Clone(cs.all()))
	if len(list) == 0 {
		cs.list.Store(nil)
		return
	}
	cs.list.Store(&list)
}

func (cs *callbacks[T]) all() []*T {
	if l := cs.list.Load(); l != nil {
		return *l
	}
	return nil
}
