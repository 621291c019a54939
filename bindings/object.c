//go:build cgo && pyext

// The type Object: a Go object with named methods, such as an optimizer, whose arguments and results are JSON and tensors.
#include "module.h"
#include "_cgo_export.h"

typedef struct {
  PyObject_HEAD
  uintptr_t handle;
  PyObject *keep;  // Python objects whose Go objects it uses
} Object;

static PyObject *object_type;

static void object_dealloc(PyObject *self) {
  Object *o = (Object *)self;
  if (o->handle && !bn_is_forked()) {
    char *err = NULL;
    Py_BEGIN_ALLOW_THREADS
    bn_object_free(o->handle, &err);
    Py_END_ALLOW_THREADS
    free(err);
  }
  Py_XDECREF(o->keep);
  bn_free_object(self);
}

int bn_object_handle(PyObject *object, uintptr_t *handle) {
  if (!PyObject_TypeCheck(object, (PyTypeObject *)object_type)) {
    PyErr_SetString(PyExc_TypeError, "expected an Object of the extension module");
    return -1;
  }
  *handle = ((Object *)object)->handle;
  return 0;
}

// object(kind, params, operands, objects)
static PyObject *py_object(PyObject *module, PyObject *args) {
  char *kind, *params, *err = NULL;
  PyObject *operands, *objects;
  if (bn_forked() || !PyArg_ParseTuple(args, "ssO!O!", &kind, &params, &PyTuple_Type, &operands, &PyTuple_Type, &objects)) return NULL;
  Py_ssize_t n = PyTuple_Size(operands), m = PyTuple_Size(objects);
  uintptr_t *used = PyMem_Calloc((size_t)m + 1, sizeof *used), *handles = NULL;
  if (!used) return PyErr_NoMemory();
  for (Py_ssize_t i = 0; i < m; i++) {
    PyObject *item = PyTuple_GetItem(objects, i);
    if (PyObject_TypeCheck(item, (PyTypeObject *)object_type)) {
      used[i] = ((Object *)item)->handle;
    } else if (bn_model_handle(item, &used[i])) {
      goto failed;
    }
  }
  handles = bn_tensor_handles(operands, n);
  if (!handles) goto failed;
  allocfunc alloc = (allocfunc)PyType_GetSlot((PyTypeObject *)object_type, Py_tp_alloc);
  Object *o = (Object *)alloc((PyTypeObject *)object_type, 0);
  if (!o) goto failed;
  o->keep = Py_NewRef(objects);
  int code;
  Py_BEGIN_ALLOW_THREADS
  code = bn_object_new(kind, params, handles, n, used, m, &o->handle, &err);
  Py_END_ALLOW_THREADS
  PyMem_Free(handles);
  PyMem_Free(used);
  if (!code) return (PyObject *)o;
  Py_DECREF(o);
  return bn_raise(code, err);
failed:
  PyMem_Free(handles);
  PyMem_Free(used);
  return NULL;
}

// call runs a method of an object, or a function when handle is 0.
static PyObject *call_method(uintptr_t handle, PyObject *args) {
  char *method, *params, *text = NULL, *err = NULL;
  PyObject *operands;
  if (bn_forked() || !PyArg_ParseTuple(args, "ssO!", &method, &params, &PyTuple_Type, &operands)) return NULL;
  Py_ssize_t n = PyTuple_Size(operands);
  uintptr_t *handles = bn_tensor_handles(operands, n), *out = NULL;
  if (!handles) return NULL;
  int64_t count = 0;
  int code;
  bn_call call;
  bn_begin(&call, handle ? BN_OBJECT : 0, NULL);
  code = bn_object_call(handle, method, params, handles, n, bn_look, &call, &text, &out, &count, &err);
  bn_end(&call);
  PyMem_Free(handles);
  if (code) return bn_raise(code, err);
  PyObject *tensors = bn_tensor_list(out, count), *str = bn_text(text);
  if (!tensors || !str || PyErr_Occurred()) {
    Py_XDECREF(tensors);
    Py_XDECREF(str);
    return NULL;
  }
  return Py_BuildValue("NN", str, tensors);
}

static PyObject *object_call(PyObject *self, PyObject *args) {
  if (bn_nested()) return NULL;
  return call_method(((Object *)self)->handle, args);
}

static PyObject *py_function(PyObject *module, PyObject *args) { return call_method(0, args); }

static PyMethodDef object_methods[] = {
    {"call", object_call, METH_VARARGS, "call(method, params, operands) -> (JSON, list of TensorHandle or None)"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot object_slots[] = {
    {Py_tp_dealloc, object_dealloc},
    {Py_tp_methods, object_methods},
    {Py_tp_doc, "An object of the Go core with named methods; made by object()."},
    {0, NULL},
};

static PyType_Spec object_spec = {
    .name = "bitnet_rust._bitnet.Object",
    .basicsize = sizeof(Object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = object_slots,
};

static PyMethodDef functions[] = {
    {"object", py_object, METH_VARARGS, "object(kind, params, operands, objects) -> Object"},
    {"function", py_function, METH_VARARGS, "function(name, params, operands) -> (JSON, list of TensorHandle or None)"},
    {NULL, NULL, 0, NULL},
};

int bn_init_object(PyObject *module) {
  object_type = bn_add_type(module, &object_spec, "Object");
  return object_type ? PyModule_AddFunctions(module, functions) : -1;
}
