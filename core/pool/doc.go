// Package pool gives out off-heap memory for the big things of a model: weights, key-value caches, and the scratch of each step.
//
// The Go heap is a poor home for them: the collector lets the heap grow to twice its live size, pages cannot be asked to be huge, and a
// slice's address is aligned to its element only. A HybridMemoryPool maps memory from the operating system instead and divides it:
//
//	Alloc(n) ──┬── n <= 32 KiB ── slab.go   equal slots of a size class, one lock a class
//	           │                     │ takes whole runs
//	           └── n >  32 KiB ── runs.go   runs of pages, best fit, free neighbours coalesced
//	                                 │ takes chunks, under the budget (budget.go)
//	                              os_*.go   mmap; large chunks start on 2 MiB and ask for huge pages
//
// Every block starts on a 64-byte border (a cache line, an AVX-512 register) and is a counted reference: Retain and Release, and at the
// last Release the memory is free for the next block. Memory is zeroed unless AllocUninit is asked for.
//
// What was asked for, what it costs after rounding, and what is mapped are counted separately (Stats); OnPressure tells a cache owner
// that the budget gets short, and OnShortage has kept memory given back before an allocation fails; Trim gives free memory back to the
// operating system.
//
// # Scratch
//
// One step of a model, a decode or a training step, asks for the same sizes in the same order each time. A Scratch records that trace
// once, computes where each block would best lie (plan.go), and from then on a step's allocation is one addition: no lock, no Go
// allocation, and an arena hardly larger than the most that was ever live at once.
//
//	s := pool.Default().NewScratch()
//	defer s.Close()
//	for step := range steps {
//		s.Begin(rows)              // steps with the same key have the same shape
//		x := pool.View[float32](s.Alloc(4 * rows * dim))
//		...
//		s.End()                    // frees what Free did not
//	}
//
// # Finding mistakes
//
// Options.Debug (BITNET_POOL_DEBUG=1 for the default pool) records where each block was allocated and released, fills released and
// uninitialised memory with 0xFF (a NaN in every float format), lists live blocks with Leaks, and names both places in the panic of a
// double release. Without it a double release or a use after the last Release still panics, but without the places.
package pool
