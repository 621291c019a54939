// What the C files of the extension share. They come after the build tag pyext.
#ifndef BITNET_MODULE_H
#define BITNET_MODULE_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "bindings.h"

// raise_code raises the exception of an export's code, frees msg, returns NULL.
PyObject *bn_raise(int code, char *msg);

// Each part of the module adds its types and functions; 0 or -1 with an error.
int bn_init_info(PyObject *module);

#endif
