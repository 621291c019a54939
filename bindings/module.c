//go:build cgo && pyext

// The extension module bitnet_rust._bitnet: initialization, exceptions, and what the other parts share.
#include <limits.h>

#include "module.h"
#include "_cgo_export.h"

// The parts of the module. A further part declares its init function in module.h and stands here.
static int (*const parts[])(PyObject *) = {
    bn_init_info,
    bn_init_model,
    bn_init_generation,
    bn_init_scheduler,
    bn_init_tensor,
    bn_init_dlpack,
    bn_init_memory,
    bn_init_log,
    bn_init_dataset,
    bn_init_tokens,
    bn_init_train,
    bn_init_object,
};

// Exceptions live in bitnet_rust/errors.py; these are their names by result code.
static const char *const exception_names[BN_CODES] = {
    [BN_OK] = "InternalError",       [BN_ERROR] = "BitNetError",       [BN_FORMAT] = "FormatError",
    [BN_CONFIG] = "ConfigError",     [BN_SHAPE] = "ShapeError",        [BN_DTYPE] = "DTypeError",
    [BN_ARGUMENT] = "ArgumentError", [BN_MEMORY] = "OutOfMemoryError", [BN_NOT_FOUND] = "ModelNotFoundError",
    [BN_INTERNAL] = "InternalError", [BN_CANCELED] = "BitNetError",
    [BN_INDEX] = "OutOfRangeError",  [BN_LOGITS] = "LogitsError",      [BN_FILE] = "FileSystemError",
    [BN_TRAINING] = "TrainingError", [BN_CHECKPOINT] = "CheckpointError",
    [BN_AUTOGRAD] = "AutogradError", [BN_CHECK] = "GradCheckError",    [BN_QUEUE_FULL] = "QueueFullError",
    [BN_DEADLINE] = "DeadlineError", [BN_REQUEST_CANCELED] = "RequestCanceledError",
};
static PyObject *exceptions[BN_CODES];
static PyObject *fork_error;

static int forked;

static void raise_text(PyObject *exception, const char *text) {
  PyObject *str = PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
  if (str) PyErr_SetObject(exception, str);
  Py_XDECREF(str);
}

PyObject *bn_raise(int code, char *msg) {
  if (!PyErr_Occurred()) raise_text(exceptions[code > 0 && code < BN_CODES ? code : BN_INTERNAL], msg ? msg : "");
  free(msg);
  return NULL;
}

PyObject *bn_exception(int code, char *msg) {
  PyObject *str = PyUnicode_DecodeUTF8(msg, (Py_ssize_t)strlen(msg), "replace");
  free(msg);
  PyObject *error = str ? PyObject_CallFunctionObjArgs(exceptions[code > 0 && code < BN_CODES ? code : BN_INTERNAL], str, NULL) : NULL;
  Py_XDECREF(str);
  return error;
}

int bn_forked(void) {
  if (forked)
    raise_text(fork_error,
               "bitnet_rust cannot be used in a process made by fork(), where the threads of its Go core do not exist; "
               "start workers with multiprocessing's 'spawn' or 'forkserver' method and load the model there");
  return forked;
}

int bn_is_forked(void) { return forked; }

PyObject *bn_text(char *text) {
  PyObject *str = PyUnicode_FromString(text);
  free(text);
  return str;
}

static _Thread_local bn_call *innermost;  // call of this thread

void bn_begin(bn_call *call, uintptr_t model, PyObject *progress) {
  *call = (bn_call){.thread = PyThread_get_thread_ident(), .progress = progress, .reported = -1, .model = model, .outer = innermost};
  innermost = call;
  call->released = PyEval_SaveThread();
}

void bn_end(bn_call *call) {
  PyEval_RestoreThread(call->released);
  innermost = call->outer;
}

int bn_interrupting(uintptr_t model) {
  for (bn_call *call = innermost; call; call = call->outer) {
    if (call->model != model) continue;
    raise_text(exceptions[BN_ARGUMENT],
               "a signal handler cannot close the model whose call it interrupts, since closing waits for that call: "
               "raise an exception in the handler and close the model after the call");
    return 1;
  }
  return 0;
}

int bn_nested(void) {
  for (bn_call *call = innermost; call; call = call->outer) {
    if (call->model != BN_OBJECT) continue;
    raise_text(exceptions[BN_ARGUMENT],
               "a signal handler cannot do this within a backward pass or a step of an optimizer, which it would wait for: do it after the call");
    return 1;
  }
  return 0;
}

int bn_look(void *state, int64_t done, int64_t total) {
  bn_call *call = state;
  if (PyThread_get_thread_ident() != call->thread) return 0;  // Python's handlers run on the calling thread only
  PyEval_RestoreThread(call->released);
  int status = PyErr_Occurred() ? -1 : PyErr_CheckSignals();
  if (!status && call->progress && total > 0 && done != call->reported) {
    PyObject *result = PyObject_CallFunction(call->progress, "LL", (long long)done, (long long)total);
    status = result ? 0 : -1;
    Py_XDECREF(result);
    call->reported = done;
  }
  call->released = PyEval_SaveThread();
  return status;
}

int bn_buffer(PyObject *object, Py_buffer *view, const char *name, char format, int writable) {
  int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
  if (PyObject_GetBuffer(object, view, flags)) return -1;
  Py_ssize_t size = format == 'q' ? 8 : 4;
  int foreign = view->format && strpbrk(view->format, ">!") != NULL;  // big-endian, or network order
  char found = view->format ? view->format[strcspn(view->format, "bBhHiIlLqQefd?c")] : 'B';
  if (found == 'l' && view->itemsize == size) found = format == 'f' ? 'l' : format;  // long has either size
  if (found == format && view->itemsize == size && !foreign) return 0;
  PyErr_Format(exceptions[BN_DTYPE], "%s: found a buffer of format '%s', expected '%c' (%s)", name,
               view->format ? view->format : "B", format, format == 'i' ? "int32" : format == 'q' ? "int64" : "float32");
  PyBuffer_Release(view);
  return -1;
}

int bn_whole(PyObject *number, void *result) {
  PyObject *index = PyNumber_Index(number);
  if (!index) return 0;
  int overflow = 0;
  long long value = PyLong_AsLongLongAndOverflow(index, &overflow);
  Py_DECREF(index);
  *(long long *)result = overflow > 0 ? LLONG_MAX : overflow < 0 ? LLONG_MIN : value;
  return overflow || value != -1 || !PyErr_Occurred();
}

PyObject *bn_add_type(PyObject *module, PyType_Spec *spec, const char *name) {
  PyObject *type = PyType_FromSpec(spec);
  if (type && PyModule_AddObjectRef(module, name, type)) Py_CLEAR(type);
  return type;
}

void bn_free_object(PyObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
  release(self);
  Py_DECREF(type);
}

static int load_exceptions(void) {
  PyObject *errors = PyImport_ImportModule("bitnet_rust.errors");
  if (!errors) return -1;
  for (int i = 0; i < BN_CODES && !PyErr_Occurred(); i++) exceptions[i] = PyObject_GetAttrString(errors, exception_names[i]);
  if (!PyErr_Occurred()) fork_error = PyObject_GetAttrString(errors, "ForkError");
  Py_DECREF(errors);
  return PyErr_Occurred() ? -1 : 0;
}

static PyObject *py_after_fork(PyObject *module, PyObject *unused) {
  forked = 1;
  Py_RETURN_NONE;
}

static PyMethodDef after_fork_method = {"after_fork", py_after_fork, METH_NOARGS, NULL};

// os.register_at_fork(after_in_child=after_fork)
static int watch_forks(void) {
  int status = -1;
  PyObject *os = PyImport_ImportModule("os");
  PyObject *hook = os ? PyCFunction_New(&after_fork_method, NULL) : NULL;
  PyObject *named = hook ? Py_BuildValue("{sO}", "after_in_child", hook) : NULL;
  PyObject *none = named ? PyTuple_New(0) : NULL;
  PyObject *registrar = none ? PyObject_GetAttrString(os, "register_at_fork") : NULL;
  PyObject *result = registrar ? PyObject_Call(registrar, none, named) : NULL;
  if (result) status = 0;
  Py_XDECREF(result);
  Py_XDECREF(registrar);
  Py_XDECREF(none);
  Py_XDECREF(named);
  Py_XDECREF(hook);
  Py_XDECREF(os);
  return status;
}

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_bitnet", "The Go core of bitnet_rust.", -1, NULL};

PyMODINIT_FUNC PyInit__bitnet(void) {
  PyObject *module = PyModule_Create(&definition);
  if (!module) return NULL;
  int status = load_exceptions();
  if (!status) status = watch_forks();
  for (size_t i = 0; !status && i < sizeof parts / sizeof *parts; i++) status = parts[i](module);
  if (!status) return module;
  Py_DECREF(module);
  return NULL;
}
