// Package logs is where the core's log records go: nowhere, until a program says where.
//
//	logs.Use(slog.Default())
//
// Records are few and of events, never of tokens: a model that was loaded (info), memory that ran short (info), huge pages that the system
// refuses (warn), and at debug level what was mapped, moved, written and chosen. Attributes have plain names: path, bytes, seconds.
package logs

import (
	"log/slog"
	"sync/atomic"
)

var logger atomic.Pointer[slog.Logger]

func init() { Use(nil) }

// Use makes the core log to l; nil is nowhere. Any goroutine logs, with locks held: l's handler must not call the core and should not wait.
func Use(l *slog.Logger) {
	if l == nil {
		l = slog.New(slog.DiscardHandler)
	}
	logger.Store(l)
}

// Get is the logger to use, for one record: Use may change it.
func Get() *slog.Logger { return logger.Load() }
