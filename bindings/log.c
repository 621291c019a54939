//go:build cgo && pyext

// The core's log records: a thread of Python's waits for them and takes them.
#include "module.h"
#include "_cgo_export.h"

static PyObject *py_log_level(PyObject *module, PyObject *number) {
  long long level;
  if (bn_forked() || !bn_whole(number, &level)) return NULL;
  char *err = NULL;
  int code = bn_log_level(level, &err);
  if (code) return bn_raise(code, err);
  Py_RETURN_NONE;
}

static PyObject *py_log_wait(PyObject *module, PyObject *unused) {
  if (bn_forked()) return NULL;
  char *err = NULL;
  int code, open = 0;
  Py_BEGIN_ALLOW_THREADS
  code = bn_log_wait(&open, &err);
  Py_END_ALLOW_THREADS
  return code ? bn_raise(code, err) : PyBool_FromLong(open);
}

static PyObject *py_log_take(PyObject *module, PyObject *unused) {
  if (bn_forked()) return NULL;
  char *text = NULL, *err = NULL;
  int code = bn_log_take(&text, &err);
  if (code) return bn_raise(code, err);
  if (text) return bn_text(text);
  Py_RETURN_NONE;
}

static PyObject *py_log_close(PyObject *module, PyObject *unused) {
  if (bn_forked()) return NULL;
  char *err = NULL;
  int code = bn_log_close(&err);
  if (code) return bn_raise(code, err);
  Py_RETURN_NONE;
}

static PyObject *py_log_selftest(PyObject *module, PyObject *number) {
  long long n;
  if (bn_forked() || !bn_whole(number, &n)) return NULL;
  char *err = NULL;
  int code = bn_log_selftest(n, &err);
  if (code) return bn_raise(code, err);
  Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"log_level", py_log_level, METH_O, "log_level(level): least level of slog's whose records are kept for Python."},
    {"log_wait", py_log_wait, METH_NOARGS, "log_wait() -> whether there may be records; False once closed."},
    {"log_take", py_log_take, METH_NOARGS, "log_take() -> JSON of the records there are and the number of those without room, or None."},
    {"log_close", py_log_close, METH_NOARGS, "log_close(): no further records; who waits returns."},
    {"log_selftest", py_log_selftest, METH_O, "log_selftest(n): logs n records, to test that they arrive."},
    {NULL, NULL, 0, NULL},
};

int bn_init_log(PyObject *module) { return PyModule_AddFunctions(module, functions); }
