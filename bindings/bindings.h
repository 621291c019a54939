// Types that both sides of the bridge use: the Go exports and the C module.
#ifndef BITNET_BINDINGS_H
#define BITNET_BINDINGS_H

#include <stdint.h>
#include <stdlib.h>

// Result codes of every export; module.c maps each to one Python exception.
enum {
  BN_OK = 0,
  BN_ERROR,      // BitNetError
  BN_FORMAT,     // FormatError
  BN_CONFIG,     // ConfigError
  BN_SHAPE,      // ShapeError
  BN_DTYPE,      // DTypeError
  BN_ARGUMENT,   // ArgumentError
  BN_MEMORY,     // OutOfMemoryError
  BN_NOT_FOUND,  // ModelNotFoundError
  BN_INTERNAL,   // InternalError: a recovered Go panic
  BN_CANCELED,   // the poll function asked to stop; its Python error is pending
  BN_INDEX,      // OutOfRangeError
  BN_LOGITS,     // LogitsError
  BN_FILE,       // FileSystemError
  BN_TRAINING,   // TrainingError
  BN_CHECKPOINT, // CheckpointError
  BN_AUTOGRAD,   // AutogradError
  BN_CHECK,      // GradCheckError
  BN_QUEUE_FULL, // QueueFullError
  BN_DEADLINE,   // DeadlineError
  BN_REQUEST_CANCELED,  // RequestCanceledError
  BN_CODES
};

// bn_poll lets Python look up from a long call: it runs on the thread that made
// the call, takes the GIL, reports progress, runs signal handlers. Nonzero: stop.
typedef int (*bn_poll)(void *state, int64_t done, int64_t total);

// One generated token. finish: 0 goes on, 1 stop token, 2 length limit.
// Its alternatives are top[top_start .. top_start+top_count].
typedef struct {
  int32_t sequence, id, finish;
  float logprob;
  int32_t top_start, top_count;
} bn_token;

typedef struct {
  int32_t id;
  float logprob;
} bn_top;

// What came of a request of a scheduler: a token, or with code the error that ended it, whose message is to be freed.
typedef struct {
  uint64_t request;
  bn_token token;
  int64_t cached;  // tokens of its prompt that were not computed
  int32_t code;
  char *message;
} bn_outcome;

// bn_event tells Python of something, in JSON, on the thread that made the call, and takes what it answers, in JSON, or
// NULL; Go frees it. Nonzero: stop, its Python error is pending.
typedef int (*bn_event)(void *state, const char *kind, const char *text, char **answer);

// bn_read reads up to n bytes from position at of a Python file into to, on whatever thread, and gives how many there were; negative: its
// Python error waits in state.
typedef int64_t (*bn_read)(void *state, int64_t at, void *to, int64_t n);

static inline int64_t bn_call_read(bn_read read, void *state, int64_t at, void *to, int64_t n) {
  return read(state, at, to, n);
}

// The description of an array in memory that libraries share, of DLPack's ABI (https://dmlc.github.io/dlpack).
enum { BN_DL_CPU = 1 };

typedef struct {
  int32_t device_type, device_id;
} DLDevice;

typedef struct {
  uint8_t code, bits;
  uint16_t lanes;
} DLDataType;

typedef struct {
  void *data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t *shape, *strides;  // in elements; strides NULL: row-major without gaps
  uint64_t byte_offset;
} DLTensor;

// Notes that nobody uses the memory of an imported array any more: its producer is told by the next call that holds the GIL.
void bn_dlpack_done(void *managed, int versioned);

static inline int bn_call_event(bn_event event, void *state, const char *kind, const char *text, char **answer) {
  return event(state, kind, text, answer);
}

static inline int bn_call_poll(bn_poll poll, void *state, int64_t done, int64_t total) {
  return poll(state, done, total);
}

#endif
