//go:build cgo && pyext

// Files of token ids: what they say of themselves, and the type TokenWriter.
#include "module.h"
#include "_cgo_export.h"

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
    {"token_writer", py_token_writer, METH_VARARGS, "token_writer(path, vocab_size, separator) -> TokenWriter"},
    {"token_file", py_token_file, METH_VARARGS, "token_file(path, dtype, offset, first, tokens) -> JSON: kind, dtype, tokens, separator, vocab_size, max_id"},
    {NULL, NULL, 0, NULL},
};

int bn_init_tokens(PyObject *module) {
  writer_type = bn_add_type(module, &writer_spec, "TokenWriter");
  return writer_type ? PyModule_AddFunctions(module, functions) : -1;
}
