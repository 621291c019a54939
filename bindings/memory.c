//go:build cgo && pyext

// The memory of the default pool: statistics, giving it back, the report of live blocks, and the type PressureWatch.
#include "module.h"
#include "_cgo_export.h"

static PyObject *py_memory_stats(PyObject *module, PyObject *unused) {
  if (bn_forked()) return NULL;
  char *text = NULL, *err = NULL;
  int code = bn_memory_stats(&text, &err);
  return code ? bn_raise(code, err) : bn_text(text);
}

static PyObject *py_memory_blocks(PyObject *module, PyObject *unused) {
  if (bn_forked()) return NULL;
  char *text = NULL, *err = NULL;
  int code = bn_memory_blocks(&text, &err);
  return code ? bn_raise(code, err) : bn_text(text);
}

static PyObject *py_set_memory_budget(PyObject *module, PyObject *args) {
  char *text, *err = NULL;
  if (bn_forked() || !PyArg_ParseTuple(args, "s", &text)) return NULL;
  int code = bn_set_memory_budget(text, &err);
  if (code) return bn_raise(code, err);
  Py_RETURN_NONE;
}

static PyObject *py_trim_memory(PyObject *module, PyObject *unused) {
  if (bn_forked()) return NULL;
  int64_t given = 0;
  char *err = NULL;
  int code;
  Py_BEGIN_ALLOW_THREADS
  code = bn_trim_memory(&given, &err);
  Py_END_ALLOW_THREADS
  return code ? bn_raise(code, err) : PyLong_FromLongLong(given);
}

typedef struct {
  PyObject_HEAD
  uintptr_t handle;
} PressureWatch;

static PyObject *watch_type;

static PyObject *py_watch_pressure(PyObject *module, PyObject *number) {
  double threshold = PyFloat_AsDouble(number);
  if (PyErr_Occurred() || bn_forked()) return NULL;
  allocfunc alloc = (allocfunc)PyType_GetSlot((PyTypeObject *)watch_type, Py_tp_alloc);
  PressureWatch *w = (PressureWatch *)alloc((PyTypeObject *)watch_type, 0);
  if (!w) return NULL;
  char *err = NULL;
  int code = bn_pressure_new(threshold, &w->handle, &err);
  if (code) {
    Py_DECREF(w);
    return bn_raise(code, err);
  }
  return (PyObject *)w;
}

static void watch_dealloc(PyObject *self) {
  PressureWatch *w = (PressureWatch *)self;
  if (w->handle && !bn_is_forked()) {
    char *err = NULL;
    bn_pressure_free(w->handle, &err);
    free(err);
  }
  bn_free_object(self);
}

static PyObject *watch_wait(PyObject *self, PyObject *unused) {
  if (bn_forked()) return NULL;
  char *text = NULL, *err = NULL;
  int code;
  Py_BEGIN_ALLOW_THREADS
  code = bn_pressure_wait(((PressureWatch *)self)->handle, &text, &err);
  Py_END_ALLOW_THREADS
  if (code) return bn_raise(code, err);
  if (text) return bn_text(text);
  Py_RETURN_NONE;
}

static PyObject *watch_close(PyObject *self, PyObject *unused) {
  if (bn_forked()) return NULL;
  char *err = NULL;
  int code = bn_pressure_close(((PressureWatch *)self)->handle, &err);
  if (code) return bn_raise(code, err);
  Py_RETURN_NONE;
}

static PyMethodDef watch_methods[] = {
    {"wait", watch_wait, METH_NOARGS, "wait() -> JSON of the statistics at the next rise, or None once closed."},
    {"close", watch_close, METH_NOARGS, "close(): ends the watch and whoever waits."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot watch_slots[] = {
    {Py_tp_dealloc, watch_dealloc},
    {Py_tp_methods, watch_methods},
    {Py_tp_doc, "Waits for the memory in use to rise over a limit; made by watch_pressure()."},
    {0, NULL},
};

static PyType_Spec watch_spec = {
    .name = "bitnet_rust._bitnet.PressureWatch",
    .basicsize = sizeof(PressureWatch),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = watch_slots,
};

static PyMethodDef functions[] = {
    {"memory_stats", py_memory_stats, METH_NOARGS, "memory_stats() -> JSON of the pool's counters."},
    {"memory_blocks", py_memory_blocks, METH_NOARGS, "memory_blocks() -> JSON list of the live blocks and where they were allocated."},
    {"set_memory_budget", py_set_memory_budget, METH_VARARGS, "set_memory_budget(text): as '8GiB' or '50%'; '' is what the machine has."},
    {"trim_memory", py_trim_memory, METH_NOARGS, "trim_memory() -> bytes given back to the system."},
    {"watch_pressure", py_watch_pressure, METH_O, "watch_pressure(threshold) -> PressureWatch"},
    {NULL, NULL, 0, NULL},
};

int bn_init_memory(PyObject *module) {
  watch_type = bn_add_type(module, &watch_spec, "PressureWatch");
  return watch_type ? PyModule_AddFunctions(module, functions) : -1;
}
