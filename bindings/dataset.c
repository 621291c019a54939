//go:build cgo && pyext

// The types Dataset, examples to train or evaluate a model on, and TokenWriter, which writes a file of token ids.
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

typedef struct {
  PyObject_HEAD
  uintptr_t handle;
} TokenWriter;

static PyObject *writer_type;

// Gives up what is not committed.
static void writer_dealloc(PyObject *self) {
  TokenWriter *w = (TokenWriter *)self;
  if (w->handle && !bn_is_forked()) {
    char *err = NULL;
    bn_tokens_free(w->handle, &err);
    free(err);
  }
  bn_free_object(self);
}

// token_writer(path, vocab_size, separator)
static PyObject *py_token_writer(PyObject *module, PyObject *args) {
  PyObject *path;
  long long vocab, separator;
  char *err = NULL;
  if (bn_forked() || !PyArg_ParseTuple(args, "O&O&O&", PyUnicode_FSConverter, &path, bn_whole, &vocab, bn_whole, &separator)) return NULL;
  allocfunc alloc = (allocfunc)PyType_GetSlot((PyTypeObject *)writer_type, Py_tp_alloc);
  TokenWriter *w = (TokenWriter *)alloc((PyTypeObject *)writer_type, 0);
  int code = BN_OK;
  if (w) {
    if (separator < -1 || separator > INT32_MAX) separator = INT32_MIN;  // refused by name
    code = bn_tokens_create(PyBytes_AsString(path), vocab, (int32_t)separator, &w->handle, &err);
  }
  Py_DECREF(path);
  if (!code) return (PyObject *)w;
  Py_DECREF((PyObject *)w);
  return bn_raise(code, err);
}

static PyObject *writer_write(PyObject *self, PyObject *ids) {
  Py_buffer view;
  char *err = NULL;
  if (bn_forked() || bn_buffer(ids, &view, "ids", 'i', 0)) return NULL;
  int code = bn_tokens_write(((TokenWriter *)self)->handle, view.buf, view.len / 4, &err);
  PyBuffer_Release(&view);
  if (code) return bn_raise(code, err);
  Py_RETURN_NONE;
}

static PyObject *writer_commit(PyObject *self, PyObject *unused) {
  char *err = NULL;
  if (bn_forked()) return NULL;
  int code;
  Py_BEGIN_ALLOW_THREADS
  code = bn_tokens_commit(((TokenWriter *)self)->handle, &err);
  Py_END_ALLOW_THREADS
  if (code) return bn_raise(code, err);
  Py_RETURN_NONE;
}

static PyMethodDef writer_methods[] = {
    {"write", writer_write, METH_O, "write(ids): appends int32 ids."},
    {"commit", writer_commit, METH_NOARGS, "commit(): completes the file and gives it its name; without, nothing is left of it."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot writer_slots[] = {
    {Py_tp_dealloc, writer_dealloc},
    {Py_tp_methods, writer_methods},
    {Py_tp_doc, "Writes a token file; made by token_writer()."},
    {0, NULL},
};

static PyType_Spec writer_spec = {
    .name = "bitnet_rust._bitnet.TokenWriter",
    .basicsize = sizeof(TokenWriter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = writer_slots,
};

// token_file(path, dtype, offset, first, tokens)
static PyObject *py_token_file(PyObject *module, PyObject *args) {
  PyObject *path;
  char *dtype, *text = NULL, *err = NULL;
  long long offset, first, tokens;
  if (bn_forked() || !PyArg_ParseTuple(args, "O&sLLL", PyUnicode_FSConverter, &path, &dtype, &offset, &first, &tokens)) return NULL;
  int code = bn_tokens_info(PyBytes_AsString(path), dtype, offset, first, tokens, &text, &err);
  Py_DECREF(path);
  return code ? bn_raise(code, err) : bn_text(text);
}

static PyMethodDef functions[] = {
    {"dataset", py_dataset, METH_VARARGS, "dataset(options, ids, targets, lengths) -> Dataset"},
    {"evaluate", py_evaluate, METH_VARARGS, "evaluate(model, dataset, progress) -> (sum of cross-entropies, targets, correct), by inference"},
    {"token_writer", py_token_writer, METH_VARARGS, "token_writer(path, vocab_size, separator) -> TokenWriter"},
    {"token_file", py_token_file, METH_VARARGS, "token_file(path, dtype, offset, first, tokens) -> JSON: kind, dtype, tokens, separator, vocab_size, max_id"},
    {NULL, NULL, 0, NULL},
};

int bn_init_dataset(PyObject *module) {
  dataset_type = bn_add_type(module, &dataset_spec, "Dataset");
  if (!dataset_type) return -1;
  writer_type = bn_add_type(module, &writer_spec, "TokenWriter");
  return writer_type ? PyModule_AddFunctions(module, functions) : -1;
}
