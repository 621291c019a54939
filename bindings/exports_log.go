//go:build cgo && pyext

package main

// #include "bindings.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"sync"
	"time"

	"github.com/bitnet-rust/bitnet_rust/core/logs"
)

// logLimit is how many records wait for Python at most; later ones are counted instead.
const logLimit = 4096

// logOff is above the level of every record.
const logOff = slog.Level(100)

// logRecord is a record as Python sees it.
type logRecord struct {
	Time     float64  `json:"time"` // seconds since 1970
	Level    int      `json:"level"`
	Message  string   `json:"message"`
	Function string   `json:"function"` // with its package
	File     string   `json:"file"`
	Line     int      `json:"line"`
	Attrs    [][2]any `json:"attributes"` // name and value
}

// logQueue holds the core's log records until Python takes them. The core logs from any goroutine, with any lock held, so that nothing here
// waits for Python: a thread of Python's waits for records instead.
type logQueue struct {
	level slog.LevelVar
	ready chan struct{} // one at most: there are records

	mu      sync.Mutex
	records []logRecord
	dropped int

	closed chan struct{}
	close  func()
}

var logged = newLogQueue()

func newLogQueue() *logQueue {
	q := &logQueue{ready: make(chan struct{}, 1), closed: make(chan struct{})}
	q.level.Set(logOff)
	q.close = sync.OnceFunc(func() { close(q.closed) })
	return q
}

func init() { logs.Use(slog.New(logHandler{queue: logged})) }

func (q *logQueue) put(r logRecord) {
	q.mu.Lock()
	if len(q.records) < logLimit {
		q.records = append(q.records, r)
	} else {
		q.dropped++
	}
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// take gives all records there are, and how many there was no room for.
func (q *logQueue) take() (records []logRecord, dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	records, dropped = q.records, q.dropped
	q.records, q.dropped = nil, 0
	return records, dropped
}

// logHandler puts records into the queue, with the attributes of all groups in one map.
type logHandler struct {
	queue *logQueue
	attrs []slog.Attr // complete names
	group string      // "a.b."
}

// Enabled compares with the level that Python asked for.
func (h logHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.queue.level.Level()
}

// Handle queues a record.
func (h logHandler) Handle(_ context.Context, r slog.Record) error {
	out := logRecord{
		Time: float64(r.Time.UnixNano()) / 1e9, Level: int(r.Level), Message: r.Message, Attrs: [][2]any{},
	}
	if r.PC != 0 {
		frame, _ := runtime.CallersFrames([]uintptr{r.PC}).Next()
		out.Function, out.File, out.Line = frame.Function, frame.File, frame.Line
	}
	for _, a := range h.attrs {
		out.addAttr("", a)
	}
	r.Attrs(func(a slog.Attr) bool {
		out.addAttr(h.group, a)
		return true
	})
	h.queue.put(out)
	return nil
}

// WithAttrs is a handler that adds attrs to every record.
func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	all := append([]slog.Attr(nil), h.attrs...)
	for _, a := range attrs {
		all = append(all, slog.Attr{Key: h.group + a.Key, Value: a.Value})
	}
	h.attrs = all
	return h
}

// WithGroup is a handler that puts name and a point before the names of attributes.
func (h logHandler) WithGroup(name string) slog.Handler {
	h.group += name + "."
	return h
}

// addAttr adds an attribute as what JSON has: durations are seconds, times RFC 3339, errors their text.
func (r *logRecord) addAttr(group string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		for _, inner := range v.Group() {
			r.addAttr(group+a.Key+".", inner)
		}
		return
	}
	r.Attrs = append(r.Attrs, [2]any{group + a.Key, jsonValue(v)})
}

// jsonValue is an attribute as what JSON has.
func jsonValue(v slog.Value) any {
	switch v.Kind() {
	case slog.KindDuration:
		return v.Duration().Seconds()
	case slog.KindTime:
		return v.Time().Format(time.RFC3339Nano)
	case slog.KindInt64, slog.KindUint64, slog.KindBool, slog.KindString:
		return v.Any()
	case slog.KindFloat64:
		if f := v.Float64(); !math.IsNaN(f) && !math.IsInf(f, 0) {
			return f
		}
	}
	if v.Any() == nil { // such as no error
		return nil
	}
	return fmt.Sprint(v.Any())
}

// bn_log_selftest logs n records with attributes of all kinds, to test that they arrive.
//
//export bn_log_selftest
func bn_log_selftest(n C.int64_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		when := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
		for i := range int(n) {
			logs.Get().With("number", i).Error("selftest", "name", "an attribute", slog.Group("group", "half", 0.5),
				"seconds", 1500*time.Millisecond, "not_a_number", math.NaN(), "error", errors.New("it broke"), "when", when)
		}
		return nil
	})
}

// bn_log_level sets the least level of slog's that is queued.
//
//export bn_log_level
func bn_log_level(level C.int64_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		logged.level.Set(slog.Level(level))
		return nil
	})
}

// bn_log_wait returns when there may be records, or with *open = 0 when the queue was closed.
//
//export bn_log_wait
func bn_log_wait(open *C.int, errOut **C.char) C.int {
	return guard(errOut, func() error {
		*open = 1
		select {
		case <-logged.ready:
		case <-logged.closed:
			*open = 0
		}
		return nil
	})
}

//export bn_log_take
func bn_log_take(out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		records, dropped := logged.take()
		if len(records) == 0 && dropped == 0 {
			return nil
		}
		return jsonOut(out, struct {
			Records []logRecord `json:"records"`
			Dropped int         `json:"dropped"`
		}{records, dropped})
	})
}

//export bn_log_close
func bn_log_close(errOut **C.char) C.int {
	return guard(errOut, func() error {
		logged.level.Set(logOff)
		logged.close()
		return nil
	})
}
