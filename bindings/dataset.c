//go:build cgo && pyext

// The type Dataset: examples to train or evaluate a model on.
#include "module.h"
#include "_cgo_export.h"

typedef struct {
  PyObject_HEAD
  uintptr_t handle;
} Dataset;

static PyObject *dataset_type;

static void dataset_dealloc(PyObject *self) {
  Dataset *d = (Dataset *)self;
  if (d->handle && !bn_is_forked()) {
    char *err = NULL;
    bn_dataset_free(d->handle, &err);
    free(err);
  }
  bn_free_object(self);
}

int bn_dataset_handle(PyObject *object, const char *name, uintptr_t *handle) {
  int is = PyObject_IsInstance(object, dataset_type);
  if (is < 0) return -1;
  if (!is) {
    PyErr_Format(PyExc_TypeError, "%s: expected a Dataset", name);
    return -1;
  }
  *handle = ((Dataset *)object)->handle;
  return 0;
}

// An optional buffer: None gives a view without memory.
static int optional(PyObject *object, Py_buffer *view, const char *name, char format) {
  if (object != Py_None) return bn_buffer(object, view, name, format, 0);
  *view = (Py_buffer){0};
  return 0;
}

// dataset(options, ids, targets, lengths)
static PyObject *py_dataset(PyObject *module, PyObject *args) {
  PyObject *ids, *targets, *lengths;
  char *options, *err = NULL;
  if (bn_forked() || !PyArg_ParseTuple(args, "sOOO", &options, &ids, &targets, &lengths)) return NULL;
  Py_buffer vi = {0}, vt = {0}, vl = {0};
  Dataset *d = NULL;
  int code = BN_OK;
  if (optional(ids, &vi, "ids", 'i') || optional(targets, &vt, "targets", 'i') || optional(lengths, &vl, "lengths", 'q')) goto done;
  if (vt.obj && vt.len != vi.len) {
    code = BN_SHAPE;
    err = strdup("targets: expected one for each id");
    goto done;
  }
  allocfunc alloc = (allocfunc)PyType_GetSlot((PyTypeObject *)dataset_type, Py_tp_alloc);
  d = (Dataset *)alloc((PyTypeObject *)dataset_type, 0);
  if (!d) goto done;
  Py_BEGIN_ALLOW_THREADS
  code = bn_dataset_new(options, vi.buf, vt.buf, vi.len / 4, vl.buf, vl.len / 8, &d->handle, &err);
  Py_END_ALLOW_THREADS
done:
  if (vi.obj) PyBuffer_Release(&vi);
  if (vt.obj) PyBuffer_Release(&vt);
  if (vl.obj) PyBuffer_Release(&vl);
  if (!code) return (PyObject *)d;
  Py_XDECREF((PyObject *)d);
  return bn_raise(code, err);
}

static PyObject *dataset_info(PyObject *self, PyObject *unused) {
  char *text = NULL, *err = NULL;
  if (bn_forked()) return NULL;
  int code = bn_dataset_info(((Dataset *)self)->handle, &text, &err);
  return code ? bn_raise(code, err) : bn_text(text);
}

static PyMethodDef dataset_methods[] = {
    {"info", dataset_info, METH_NOARGS, "info() -> JSON: kind, examples, tokens, order; of examples also truncated and skipped."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot dataset_slots[] = {
    {Py_tp_dealloc, dataset_dealloc},
    {Py_tp_methods, dataset_methods},
    {Py_tp_doc, "Examples to train or evaluate on; made by dataset()."},
    {0, NULL},
};

static PyType_Spec dataset_spec = {
    .name = "bitnet_rust._bitnet.Dataset",
    .basicsize = sizeof(Dataset),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = dataset_slots,
};

// evaluate(model, dataset, progress)
static PyObject *py_evaluate(PyObject *module, PyObject *args) {
  PyObject *model, *dataset, *progress;
  uintptr_t m, d;
  char *err = NULL;
  double nats = 0;
  int64_t targets = 0, correct = 0;
  bn_call call;
  if (bn_forked() || !PyArg_ParseTuple(args, "OOO", &model, &dataset, &progress)) return NULL;
  if (bn_model_handle(model, &m) || bn_dataset_handle(dataset, "dataset", &d)) return NULL;
  bn_begin(&call, m, progress == Py_None ? NULL : progress);
  int code = bn_evaluate(m, d, bn_look, &call, &nats, &targets, &correct, &err);
  bn_end(&call);
  if (code || PyErr_Occurred()) return bn_raise(code, err);
  return Py_BuildValue("dLL", nats, (long long)targets, (long long)correct);
}

static PyMethodDef functions[] = {
    {"dataset", py_dataset, METH_VARARGS, "dataset(options, ids, targets, lengths) -> Dataset"},
    {"evaluate", py_evaluate, METH_VARARGS, "evaluate(model, dataset, progress) -> (sum of cross-entropies, targets, correct), by inference"},
    {NULL, NULL, 0, NULL},
};

int bn_init_dataset(PyObject *module) {
  dataset_type = bn_add_type(module, &dataset_spec, "Dataset");
  return dataset_type ? PyModule_AddFunctions(module, functions) : -1;
}
