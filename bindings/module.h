// What the C files of the extension share; each of them starts with the build
// constraint `cgo && pyext`.
#ifndef BITNET_MODULE_H
#define BITNET_MODULE_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <string.h>

#include "bindings.h"

// Raises the exception of an export's result code, frees msg, returns NULL. A pending exception (from bn_look) stays.
PyObject *bn_raise(int code, char *msg);

// True, with an exception, in a child of fork(): Go's threads are not there.
int bn_forked(void);
int bn_is_forked(void);  // the same without the exception

// Makes a str of a JSON text that an export wrote, and frees it.
PyObject *bn_text(char *text);

// A call into Go without the GIL:
//   bn_call call;
//   BN_BEGIN(call, progress)   // progress: a Python callable(done, total), or NULL
//   code = bn_something(..., bn_look, &call, ...);
//   BN_END(call)
// bn_look is the bn_poll that takes the GIL back for a moment.
typedef struct {
  PyThreadState *released;
  unsigned long thread;
  PyObject *progress;
  int64_t reported;
} bn_call;

#define BN_BEGIN(call, callable)                                                        \
  (call) = (bn_call){.thread = PyThread_get_thread_ident(), .progress = (callable), .reported = -1}; \
  (call).released = PyEval_SaveThread();
#define BN_END(call) PyEval_RestoreThread((call).released);

int bn_look(void *call, int64_t done, int64_t total);

// A C-contiguous one-dimensional buffer of one element type; 0, or -1 with DTypeError or BufferError.
int bn_buffer(PyObject *object, Py_buffer *view, const char *name, char format, int writable);

// Adds a type made from spec to the module; NULL with an error.
PyObject *bn_add_type(PyObject *module, PyType_Spec *spec, const char *name);

// Frees an object of one of our types.
void bn_free_object(PyObject *self);

// Each part of the module adds its types and functions; 0, or -1 with an error.
int bn_init_info(PyObject *module);
int bn_init_model(PyObject *module);
int bn_init_generation(PyObject *module);
int bn_init_tensor(PyObject *module);

// What Generation needs of a Model object: its handle, and an exception if the object is something else.
int bn_model_handle(PyObject *object, uintptr_t *handle);

#endif
