//go:build cgo && pyext

// Functions about the build, the machine, the threads, configs and the registry.
#include "module.h"
#include "_cgo_export.h"

static PyObject *py_build_info(PyObject *module, PyObject *unused) {
  if (bn_forked()) return NULL;
  char *text = NULL, *err = NULL;
  int code = bn_build_info(&text, &err);
  return code ? bn_raise(code, err) : bn_text(text);
}

static PyObject *py_num_threads(PyObject *module, PyObject *unused) {
  if (bn_forked()) return NULL;
  int64_t n = 0;
  char *err = NULL;
  int code = bn_num_threads(&n, &err);
  return code ? bn_raise(code, err) : PyLong_FromLongLong(n);
}

static PyObject *py_set_num_threads(PyObject *module, PyObject *number) {
  long long n;
  if (bn_forked() || !bn_whole(number, &n)) return NULL;
  char *err = NULL;
  int code;
  Py_BEGIN_ALLOW_THREADS  // waits for a running job
  code = bn_set_num_threads(n, &err);
  Py_END_ALLOW_THREADS
  if (code) return bn_raise(code, err);
  Py_RETURN_NONE;
}

static PyObject *py_set_isa(PyObject *module, PyObject *args) {
  char *name, *err = NULL;
  if (bn_forked() || !PyArg_ParseTuple(args, "s", &name)) return NULL;
  int code = bn_set_isa(name, &err);
  if (code) return bn_raise(code, err);
  Py_RETURN_NONE;
}

static PyObject *py_set_skip_zeros(PyObject *module, PyObject *on) {
  int value = PyObject_IsTrue(on);
  if (value < 0 || bn_forked()) return NULL;
  char *err = NULL;
  int code = bn_set_skip_zeros(value, &err);
  if (code) return bn_raise(code, err);
  Py_RETURN_NONE;
}

static PyObject *py_read_bandwidth(PyObject *module, PyObject *args) {
  long long threads, bytes;
  double seconds, result = 0;
  if (bn_forked() || !PyArg_ParseTuple(args, "LLd", &threads, &bytes, &seconds)) return NULL;
  char *err = NULL;
  int code;
  Py_BEGIN_ALLOW_THREADS
  code = bn_read_bandwidth(threads, bytes, seconds, &result, &err);
  Py_END_ALLOW_THREADS
  return code ? bn_raise(code, err) : PyFloat_FromDouble(result);
}

static PyObject *py_presets(PyObject *module, PyObject *unused) {
  if (bn_forked()) return NULL;
  char *text = NULL, *err = NULL;
  int code = bn_presets(&text, &err);
  return code ? bn_raise(code, err) : bn_text(text);
}

static PyObject *py_find_preset(PyObject *module, PyObject *args) {
  char *name, *text = NULL, *err = NULL;
  if (bn_forked() || !PyArg_ParseTuple(args, "s", &name)) return NULL;
  int code = bn_find_preset(name, &text, &err);
  return code ? bn_raise(code, err) : bn_text(text);
}

static PyObject *py_register_preset(PyObject *module, PyObject *args) {
  char *name, *hub_id, *config, *err = NULL;
  if (bn_forked() || !PyArg_ParseTuple(args, "sss", &name, &hub_id, &config)) return NULL;
  int code = bn_register_preset(name, hub_id, config, &err);
  if (code) return bn_raise(code, err);
  Py_RETURN_NONE;
}

static PyObject *py_yaml(PyObject *module, PyObject *args) {
  char *content, *name, *text = NULL, *err = NULL;
  if (bn_forked() || !PyArg_ParseTuple(args, "ss", &content, &name)) return NULL;
  int code = bn_yaml(content, name, &text, &err);
  return code ? bn_raise(code, err) : bn_text(text);
}

static PyObject *py_config(PyObject *module, PyObject *args) {
  char *json, *text = NULL, *err = NULL;
  PyObject *path = NULL;
  if (bn_forked() || !PyArg_ParseTuple(args, "O&s", PyUnicode_FSConverter, &path, &json)) return NULL;
  int code = bn_config(PyBytes_AsString(path), json, &text, &err);
  Py_DECREF(path);
  return code ? bn_raise(code, err) : bn_text(text);
}

static PyObject *py_inspect(PyObject *module, PyObject *args) {
  char *layout, *text = NULL, *err = NULL;
  int stats;
  PyObject *path = NULL, *progress;
  if (bn_forked() || !PyArg_ParseTuple(args, "O&psO", PyUnicode_FSConverter, &path, &stats, &layout, &progress)) return NULL;
  bn_call call;
  bn_begin(&call, 0, progress == Py_None ? NULL : progress);
  int code = bn_inspect(PyBytes_AsString(path), stats, layout, bn_look, &call, &text, &err);
  bn_end(&call);
  Py_DECREF(path);
  return code ? bn_raise(code, err) : bn_text(text);
}

static PyObject *py_verify(PyObject *module, PyObject *args) {
  char *options, *text = NULL, *err = NULL;
  PyObject *path = NULL, *progress;
  if (bn_forked() || !PyArg_ParseTuple(args, "O&sO", PyUnicode_FSConverter, &path, &options, &progress)) return NULL;
  bn_call call;
  bn_begin(&call, 0, progress == Py_None ? NULL : progress);
  int code = bn_verify(PyBytes_AsString(path), options, bn_look, &call, &text, &err);
  bn_end(&call);
  Py_DECREF(path);
  return code ? bn_raise(code, err) : bn_text(text);
}

static PyObject *py_tensor_bytes(PyObject *module, PyObject *args) {
  char *name, *text = NULL, *err = NULL;
  long long at, n;
  PyObject *path = NULL;
  if (bn_forked() || !PyArg_ParseTuple(args, "O&sO&O&", PyUnicode_FSConverter, &path, &name, bn_whole, &at, bn_whole, &n)) return NULL;
  int code;
  Py_BEGIN_ALLOW_THREADS
  code = bn_tensor_bytes(PyBytes_AsString(path), name, at, n, &text, &err);
  Py_END_ALLOW_THREADS
  Py_DECREF(path);
  return code ? bn_raise(code, err) : bn_text(text);
}

static PyObject *py_selftest_kernels(PyObject *module, PyObject *unused) {
  if (bn_forked()) return NULL;
  char *text = NULL, *err = NULL;
  int code;
  Py_BEGIN_ALLOW_THREADS
  code = bn_selftest_kernels(&text, &err);
  Py_END_ALLOW_THREADS
  return code ? bn_raise(code, err) : bn_text(text);
}

static PyObject *py_selftest_panic(PyObject *module, PyObject *args) {
  char *place, *err = NULL;
  if (bn_forked() || !PyArg_ParseTuple(args, "s", &place)) return NULL;
  int code;
  bn_call call;
  bn_begin(&call, 0, NULL);
  code = bn_selftest_panic(place, bn_look, &call, &err);
  bn_end(&call);
  if (code) return bn_raise(code, err);
  Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"build_info", py_build_info, METH_NOARGS, "build_info() -> JSON text about the build and this machine."},
    {"num_threads", py_num_threads, METH_NOARGS, "num_threads() -> threads the kernels use."},
    {"set_num_threads", py_set_num_threads, METH_O, "set_num_threads(n): 1 to 1024."},
    {"set_isa", py_set_isa, METH_VARARGS, "set_isa(name): kernels run on that instruction set; the results do not change."},
    {"set_skip_zeros", py_set_skip_zeros, METH_O, "set_skip_zeros(on): whether weights of neurons that are off are left unread; the results do not change."},
    {"read_bandwidth", py_read_bandwidth, METH_VARARGS, "read_bandwidth(threads, bytes, seconds) -> GB/s of reading memory."},
    {"presets", py_presets, METH_NOARGS, "presets() -> JSON list of the registered models."},
    {"find_preset", py_find_preset, METH_VARARGS, "find_preset(name) -> JSON of the model with that name, alias or hub id."},
    {"register_preset", py_register_preset, METH_VARARGS, "register_preset(name, hub_id, config)"},
    {"yaml", py_yaml, METH_VARARGS, "yaml(text, name) -> JSON of the content of a YAML file."},
    {"config", py_config, METH_VARARGS, "config(path, text) -> validated JSON of the config in a file, or of a JSON text if path is ''."},
    {"inspect", py_inspect, METH_VARARGS, "inspect(path, stats, i2s_layout, progress) -> JSON of what the files of a model hold."},
    {"verify", py_verify, METH_VARARGS, "verify(path, options, progress) -> JSON of what is wrong with the files of a model."},
    {"tensor_bytes", py_tensor_bytes, METH_VARARGS, "tensor_bytes(path, name, at, n) -> JSON string: base64 of bytes of a tensor in a model's files."},
    {"selftest_kernels", py_selftest_kernels, METH_NOARGS, "selftest_kernels() -> JSON list of kernels, instruction sets and what is wrong."},
    {"selftest_panic", py_selftest_panic, METH_VARARGS, "selftest_panic(place): panics, to test that it is contained."},
    {NULL, NULL, 0, NULL},
};

int bn_init_info(PyObject *module) {
  char *version = bn_version();
  int status = PyModule_AddStringConstant(module, "__version__", version);
  free(version);
  return status ? status : PyModule_AddFunctions(module, methods);
}
