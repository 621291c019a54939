//go:build cgo && pyext

// The extension module bitnet_rust._bitnet: initialization and the exceptions.
#include "module.h"
#include "_cgo_export.h"

// The parts of the module. A further part adds its init function to module.h and here.
static int (*const parts[])(PyObject *) = {
    bn_init_info,
};

// Exceptions live in bitnet_rust/errors.py; these are its names by result code.
static const char *const exception_names[BN_CODES] = {
    [BN_OK] = "InternalError",          [BN_ERROR] = "BitNetError",       [BN_FORMAT] = "FormatError",
    [BN_CONFIG] = "ConfigError",        [BN_SHAPE] = "ShapeError",        [BN_DTYPE] = "DTypeError",
    [BN_ARGUMENT] = "ArgumentError",    [BN_MEMORY] = "OutOfMemoryError", [BN_NOT_FOUND] = "ModelNotFoundError",
    [BN_INTERNAL] = "InternalError",    [BN_CANCELED] = "BitNetError",
};
static PyObject *exceptions[BN_CODES];

PyObject *bn_raise(int code, char *msg) {
  if (!PyErr_Occurred()) {  // a canceled call's own exception stays
    if (code < 0 || code >= BN_CODES) code = BN_INTERNAL;
    PyObject *text = PyUnicode_DecodeUTF8(msg ? msg : "", msg ? (Py_ssize_t)strlen(msg) : 0, "replace");
    if (text) PyErr_SetObject(exceptions[code], text);
    Py_XDECREF(text);
  }
  free(msg);
  return NULL;
}

static int load_exceptions(void) {
  PyObject *errors = PyImport_ImportModule("bitnet_rust.errors");
  if (!errors) return -1;
  for (int i = 0; i < BN_CODES; i++) {
    exceptions[i] = PyObject_GetAttrString(errors, exception_names[i]);
    if (!exceptions[i]) break;
  }
  Py_DECREF(errors);
  return PyErr_Occurred() ? -1 : 0;
}

static PyObject *py_build_info(PyObject *module, PyObject *unused) {
  char *text = NULL, *err = NULL;
  int code = bn_build_info(&text, &err);
  if (code) return bn_raise(code, err);
  PyObject *result = PyUnicode_FromString(text);
  free(text);
  return result;
}

static PyMethodDef info_methods[] = {
    {"build_info", py_build_info, METH_NOARGS, "build_info() -> str\n\nJSON text about the build and this machine."},
    {NULL, NULL, 0, NULL},
};

int bn_init_info(PyObject *module) {
  char *version = bn_version();
  int status = PyModule_AddStringConstant(module, "__version__", version);
  free(version);
  return status ? status : PyModule_AddFunctions(module, info_methods);
}

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_bitnet", "The Go core of bitnet_rust.", -1, NULL};

PyMODINIT_FUNC PyInit__bitnet(void) {
  PyObject *module = PyModule_Create(&definition);
  if (!module) return NULL;
  int status = load_exceptions();
  for (size_t i = 0; !status && i < sizeof parts / sizeof *parts; i++) status = parts[i](module);
  if (!status) return module;
  Py_DECREF(module);
  return NULL;
}
