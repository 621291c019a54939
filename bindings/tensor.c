//go:build cgo && pyext

// The type TensorHandle: owns a tensor with its history (core/autograd). bitnet_rust/tensor.py makes the class users see of it.
#include "module.h"
#include "_cgo_export.h"

typedef struct {
  PyObject_HEAD
  uintptr_t handle;
} TensorHandle;

static PyObject *tensor_type;

static TensorHandle *tensor_alloc(void) {
  allocfunc alloc = (allocfunc)PyType_GetSlot((PyTypeObject *)tensor_type, Py_tp_alloc);
  return (TensorHandle *)alloc((PyTypeObject *)tensor_type, 0);
}

static void tensor_dealloc(PyObject *self) {
  TensorHandle *t = (TensorHandle *)self;
  if (t->handle && !bn_is_forked()) {
    if (bn_tensor_free(t->handle)) {
      Py_BEGIN_ALLOW_THREADS
      bn_dlpack_collect();
      Py_END_ALLOW_THREADS
    }
    bn_dlpack_drain();
  }
  bn_free_object(self);
}

static PyObject *py_tensor(PyObject *module, PyObject *args) {
  char *spec, *err = NULL;
  PyObject *data;
  Py_buffer view;
  if (bn_forked() || !PyArg_ParseTuple(args, "sO", &spec, &data)) return NULL;
  if (PyObject_GetBuffer(data, &view, PyBUF_C_CONTIGUOUS)) return NULL;
  TensorHandle *t = tensor_alloc();
  int code = 0;
  if (t) {
    Py_BEGIN_ALLOW_THREADS
    code = bn_tensor_new(spec, view.buf, view.len, &t->handle, &err);
    Py_END_ALLOW_THREADS
  }
  PyBuffer_Release(&view);
  if (t && code) {
    Py_DECREF(t);
    return bn_raise(code, err);
  }
  return (PyObject *)t;
}

uintptr_t *bn_tensor_handles(PyObject *operands, Py_ssize_t n) {
  uintptr_t *handles = PyMem_Calloc((size_t)n + 1, sizeof *handles);
  if (!handles) return (uintptr_t *)PyErr_NoMemory();
  for (Py_ssize_t i = 0; i < n; i++) {
    PyObject *item = PyTuple_GetItem(operands, i);
    if (!item || !PyObject_TypeCheck(item, (PyTypeObject *)tensor_type)) {
      if (item) PyErr_SetString(PyExc_TypeError, "expected a tuple of TensorHandle");
      PyMem_Free(handles);
      return NULL;
    }
    handles[i] = ((TensorHandle *)item)->handle;
  }
  return handles;
}

PyObject *bn_tensor_list(uintptr_t *handles, Py_ssize_t n) {
  PyObject *list = PyList_New(n);
  for (Py_ssize_t i = 0; i < n; i++) {
    if (!handles[i]) {
      if (list && PyList_SetItem(list, i, Py_NewRef(Py_None))) Py_CLEAR(list);
      continue;
    }
    TensorHandle *t = list ? tensor_alloc() : NULL;
    if (t) {
      t->handle = handles[i];
      if (PyList_SetItem(list, i, (PyObject *)t)) Py_CLEAR(list);
    } else {
      bn_tensor_free(handles[i]);
      Py_CLEAR(list);
    }
  }
  free(handles);
  return list;
}

static PyObject *py_tensor_call(PyObject *module, PyObject *args) {
  char *name, *params, *err = NULL;
  PyObject *operands;
  int record;
  if (bn_forked() || !PyArg_ParseTuple(args, "sO!sp", &name, &PyTuple_Type, &operands, &params, &record)) return NULL;
  Py_ssize_t n = PyTuple_Size(operands);
  uintptr_t *handles = bn_tensor_handles(operands, n), *out = NULL;
  if (!handles) return NULL;
  int64_t count = 0;
  int code;
  bn_call call;
  bn_begin(&call, 0, NULL);
  code = bn_tensor_call(name, handles, n, params, record, bn_look, &call, &out, &count, &err);
  bn_end(&call);
  PyMem_Free(handles);
  PyObject *results = code ? NULL : bn_tensor_list(out, count);
  if (code || PyErr_Occurred()) {
    Py_XDECREF(results);
    return bn_raise(code, err);
  }
  return results;
}

static PyObject *tensor_info(PyObject *self, PyObject *unused) {
  char *text = NULL, *err = NULL;
  if (bn_forked()) return NULL;
  int code = bn_tensor_info(((TensorHandle *)self)->handle, &text, &err);
  return code ? bn_raise(code, err) : bn_text(text);
}

static PyObject *tensor_flags(PyObject *self, PyObject *unused) {
  char *err = NULL;
  int flags = 0;
  if (bn_forked()) return NULL;
  int code = bn_tensor_flags(((TensorHandle *)self)->handle, &flags, &err);
  return code ? bn_raise(code, err) : PyLong_FromLong(flags);
}

static PyObject *tensor_read(PyObject *self, PyObject *buffer) {
  char *err = NULL;
  Py_buffer view;
  if (bn_forked() || PyObject_GetBuffer(buffer, &view, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)) return NULL;
  int code;
  Py_BEGIN_ALLOW_THREADS
  code = bn_tensor_read(((TensorHandle *)self)->handle, view.buf, view.len, &err);
  Py_END_ALLOW_THREADS
  PyBuffer_Release(&view);
  if (code) return bn_raise(code, err);
  Py_RETURN_NONE;
}

static PyMethodDef tensor_methods[] = {
    {"info", tensor_info, METH_NOARGS, "info() -> JSON of dtype, shape, strides, contiguous."},
    {"flags", tensor_flags, METH_NOARGS, "flags() -> 1 if it requires a gradient, plus 2 if it is a leaf."},
    {"read", tensor_read, METH_O, "read(buffer): copies the elements, row-major, to a writable buffer of their size."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot tensor_slots[] = {
    {Py_tp_dealloc, tensor_dealloc},
    {Py_tp_methods, tensor_methods},
    {Py_tp_doc, "A tensor of the Go core; made by tensor() or tensor_call()."},
    {0, NULL},
};

static PyType_Spec tensor_spec = {
    .name = "bitnet_rust._bitnet.TensorHandle",
    .basicsize = sizeof(TensorHandle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = tensor_slots,
};

static PyMethodDef functions[] = {
    {"tensor", py_tensor, METH_VARARGS, "tensor(spec, buffer) -> TensorHandle; spec is JSON of dtype and shape."},
    {"tensor_call", py_tensor_call, METH_VARARGS, "tensor_call(name, operands, params, record) -> list of TensorHandle"},
    {NULL, NULL, 0, NULL},
};

int bn_init_tensor(PyObject *module) {
  tensor_type = bn_add_type(module, &tensor_spec, "TensorHandle");
  return tensor_type ? PyModule_AddFunctions(module, functions) : -1;
}
