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

// The exception object of a result code, without raising it; frees msg.
PyObject *bn_exception(int code, char *msg);

// True, with an exception, in a child of fork(): Go's threads are not there.
int bn_forked(void);
int bn_is_forked(void);  // the same without the exception

// Makes a str of a JSON text that an export wrote, and frees it.
PyObject *bn_text(char *text);

// A call into Go without the GIL:
//   bn_call call;
//   bn_begin(&call, model, progress);  // model: the handle of the model it uses, or 0; progress: a callable(done, total), or NULL
//   code = bn_something(..., bn_look, &call, ...);
//   bn_end(&call);
// bn_look is the bn_poll that takes the GIL back for a moment.
typedef struct bn_call {
  PyThreadState *released;
  unsigned long thread;
  PyObject *progress;
  int64_t reported;
  uintptr_t model;
  struct bn_call *outer;  // which this one interrupts: a signal handler of it makes this call
} bn_call;

void bn_begin(bn_call *call, uintptr_t model, PyObject *progress);
void bn_end(bn_call *call);

// True, with an exception, when a call of this thread uses the model: the caller is a signal handler that it waits for.
int bn_interrupting(uintptr_t model);

int bn_look(void *call, int64_t done, int64_t total);

// What bn_begin gets as model for a call of an Object.
#define BN_OBJECT ((uintptr_t)-1)

// True, with an exception, when this thread is within a call of an Object: the caller is a signal handler of it.
int bn_nested(void);

// A C-contiguous one-dimensional buffer of one element type; 0, or -1 with DTypeError or BufferError.
int bn_buffer(PyObject *object, Py_buffer *view, const char *name, char format, int writable);

// A converter for O& to a long long: a number beyond its range becomes the end of the range, which the core refuses by name.
int bn_whole(PyObject *number, void *result);

// Adds a type made from spec to the module; NULL with an error.
PyObject *bn_add_type(PyObject *module, PyType_Spec *spec, const char *name);

// Frees an object of one of our types.
void bn_free_object(PyObject *self);

// Each part of the module adds its types and functions; 0, or -1 with an error.
int bn_init_info(PyObject *module);
int bn_init_model(PyObject *module);
int bn_init_generation(PyObject *module);
int bn_init_scheduler(PyObject *module);
int bn_init_tensor(PyObject *module);
int bn_init_dlpack(PyObject *module);
int bn_init_memory(PyObject *module);
int bn_init_log(PyObject *module);
int bn_init_dataset(PyObject *module);
int bn_init_tokens(PyObject *module);
int bn_init_train(PyObject *module);
int bn_init_object(PyObject *module);

// The parts of a token that Python sees: None, "stop" or "length", and a tuple of (id, logprob).
PyObject *bn_finish_name(const bn_token *token);
PyObject *bn_top_tuple(const bn_token *token, const bn_top *tops);

// What Generation and TrainingRun need of a Model object: its handle, and an exception if the object is something else.
int bn_model_handle(PyObject *object, uintptr_t *handle);

// The same of an Object.
int bn_object_handle(PyObject *object, uintptr_t *handle);

// The same of a Dataset object; name is the argument's, for the exception.
int bn_dataset_handle(PyObject *object, const char *name, uintptr_t *handle);

// The handles of a tuple of n TensorHandle objects, in an array for PyMem_Free; NULL with an error.
uintptr_t *bn_tensor_handles(PyObject *operands, Py_ssize_t n);

// Tells producers of imported arrays that these are not used any more. The caller holds the GIL.
void bn_dlpack_drain(void);

// Makes a list of n new handles, 0 becoming None; takes over the handles and their array whatever happens.
PyObject *bn_tensor_list(uintptr_t *handles, Py_ssize_t n);

#endif
