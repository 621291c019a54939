//go:build cgo && pyext

// The type Model: owns a loaded model, gives it back when the object goes.
#include "module.h"
#include "_cgo_export.h"

typedef struct {
  PyObject_HEAD
  uintptr_t handle;
} Model;

static PyObject *model_type;

int bn_model_handle(PyObject *object, uintptr_t *handle) {
  if (!PyObject_TypeCheck(object, (PyTypeObject *)model_type)) {
    PyErr_SetString(PyExc_TypeError, "expected a Model");
    return -1;
  }
  *handle = ((Model *)object)->handle;
  return 0;
}

static Model *model_new(void) {
  allocfunc alloc = (allocfunc)PyType_GetSlot((PyTypeObject *)model_type, Py_tp_alloc);
  return (Model *)alloc((PyTypeObject *)model_type, 0);
}

static void model_dealloc(PyObject *self) {
  Model *m = (Model *)self;
  if (m->handle && !bn_is_forked()) {
    char *err = NULL;
    Py_BEGIN_ALLOW_THREADS
    bn_model_free(m->handle, &err);
    Py_END_ALLOW_THREADS
    free(err);
  }
  bn_free_object(self);
}

static PyObject *py_load(PyObject *module, PyObject *args) {
  PyObject *path = NULL, *progress;
  char *options, *err = NULL;
  if (bn_forked() || !PyArg_ParseTuple(args, "O&sO", PyUnicode_FSConverter, &path, &options, &progress)) return NULL;
  Model *m = model_new();
  if (!m) {
    Py_DECREF(path);
    return NULL;
  }
  const char *name = PyBytes_AsString(path);
  int code;
  bn_call call;
  bn_begin(&call, 0, progress == Py_None ? NULL : progress);
  code = bn_model_load((char *)name, options, bn_look, &call, &m->handle, &err);
  bn_end(&call);
  Py_DECREF(path);
  if (code || PyErr_Occurred()) {
    Py_DECREF(m);
    return bn_raise(code, err);
  }
  return (PyObject *)m;
}

// A Python function read(at, n) -> bytes, and the exception that it raised.
typedef struct {
  PyObject *read, *type, *value, *trace;
} bn_source;

// The bn_read of a bn_source. The exception waits there for the calling thread.
static int64_t source_read(void *state, int64_t at, void *to, int64_t n) {
  bn_source *s = state;
  int64_t got = -1;
  Py_buffer view;
  PyGILState_STATE gil = PyGILState_Ensure();
  PyObject *bytes = PyObject_CallFunction(s->read, "LL", (long long)at, (long long)n);
  if (bytes && !PyObject_GetBuffer(bytes, &view, PyBUF_SIMPLE)) {
    if (view.len <= n) {
      got = view.len;
      memcpy(to, view.buf, view.len);
    } else {
      PyErr_SetString(PyExc_ValueError, "read() gave more bytes than it was asked for");
    }
    PyBuffer_Release(&view);
  }
  Py_XDECREF(bytes);
  if (got < 0 && !s->type) PyErr_Fetch(&s->type, &s->value, &s->trace);
  PyErr_Clear();
  PyGILState_Release(gil);
  return got;
}

static PyObject *py_load_stream(PyObject *module, PyObject *args) {
  PyObject *progress;
  char *name, *options, *err = NULL;
  long long size;
  bn_source source = {0};
  if (bn_forked() || !PyArg_ParseTuple(args, "OsLsO", &source.read, &name, &size, &options, &progress)) return NULL;
  Model *m = model_new();
  if (!m) return NULL;
  bn_call call;
  bn_begin(&call, 0, progress == Py_None ? NULL : progress);
  int code = bn_model_load_stream(source_read, &source, name, size, options, bn_look, &call, &m->handle, &err);
  bn_end(&call);
  if (source.type) {
    if (!PyErr_Occurred()) {
      PyErr_Restore(source.type, source.value, source.trace);
    } else {
      Py_XDECREF(source.type);
      Py_XDECREF(source.value);
      Py_XDECREF(source.trace);
    }
  }
  if (code || PyErr_Occurred()) {
    Py_DECREF(m);
    return bn_raise(code, err);
  }
  return (PyObject *)m;
}

static PyObject *py_random(PyObject *module, PyObject *args) {
  char *config, *options, *err = NULL;
  unsigned long long seed;
  int trainable;
  if (bn_forked() || !PyArg_ParseTuple(args, "sKsp", &config, &seed, &options, &trainable)) return NULL;
  Model *m = model_new();
  if (!m) return NULL;
  int code;
  bn_call call;
  bn_begin(&call, 0, NULL);
  code = bn_model_random(config, seed, options, trainable, bn_look, &call, &m->handle, &err);
  bn_end(&call);
  if (code || PyErr_Occurred()) {
    Py_DECREF(m);
    return bn_raise(code, err);
  }
  return (PyObject *)m;
}

static PyObject *model_close(PyObject *self, PyObject *unused) {
  if (bn_forked() || bn_interrupting(((Model *)self)->handle)) return NULL;
  char *err = NULL;
  int code;
  Py_BEGIN_ALLOW_THREADS
  code = bn_model_close(((Model *)self)->handle, &err);
  Py_END_ALLOW_THREADS
  if (code) return bn_raise(code, err);
  Py_RETURN_NONE;
}

static PyObject *model_info(PyObject *self, PyObject *unused) {
  char *text = NULL, *err = NULL;
  if (bn_forked()) return NULL;
  int code = bn_model_info(((Model *)self)->handle, &text, &err);
  return code ? bn_raise(code, err) : bn_text(text);
}

static PyObject *model_save(PyObject *self, PyObject *args) {
  PyObject *path = NULL, *progress;
  char *format, *options, *text = NULL, *err = NULL;
  if (bn_forked() || !PyArg_ParseTuple(args, "O&ssO", PyUnicode_FSConverter, &path, &format, &options, &progress)) return NULL;
  const char *name = PyBytes_AsString(path);
  int code;
  bn_call call;
  bn_begin(&call, ((Model *)self)->handle, progress == Py_None ? NULL : progress);
  code = bn_model_save(((Model *)self)->handle, (char *)name, format, options, bn_look, &call, &text, &err);
  bn_end(&call);
  Py_DECREF(path);
  if (code || PyErr_Occurred()) {
    free(text);
    return bn_raise(code, err);
  }
  return bn_text(text);
}

static PyObject *model_forward(PyObject *self, PyObject *args) {
  PyObject *ids, *lengths, *out;
  Py_buffer vi, vl, vo;
  char *err = NULL;
  int hidden;
  if (bn_forked() || !PyArg_ParseTuple(args, "OOOp", &ids, &lengths, &out, &hidden)) return NULL;
  if (bn_buffer(ids, &vi, "token ids", 'i', 0)) return NULL;
  if (bn_buffer(lengths, &vl, "lengths", 'q', 0)) goto no_lengths;
  if (bn_buffer(out, &vo, hidden ? "hidden states" : "logits", 'f', 1)) goto no_out;
  int code;
  bn_call call;
  bn_begin(&call, ((Model *)self)->handle, NULL);
  code = bn_model_forward(((Model *)self)->handle, vi.buf, vi.len / 4, vl.buf, vl.len / 8, vo.buf, vo.len / 4, hidden, bn_look, &call, &err);
  bn_end(&call);
  PyBuffer_Release(&vo);
  PyBuffer_Release(&vl);
  PyBuffer_Release(&vi);
  if (code || PyErr_Occurred()) return bn_raise(code, err);
  Py_RETURN_NONE;
no_out:
  PyBuffer_Release(&vl);
no_lengths:
  PyBuffer_Release(&vi);
  return NULL;
}

static PyObject *model_likelihood(PyObject *self, PyObject *args) {
  PyObject *ids;
  long long window, stride;
  Py_buffer vi;
  char *err = NULL;
  if (bn_forked() || !PyArg_ParseTuple(args, "OO&O&", &ids, bn_whole, &window, bn_whole, &stride)) return NULL;
  if (bn_buffer(ids, &vi, "token ids", 'i', 0)) return NULL;
  double sum = 0;
  int64_t count = 0;
  int code;
  bn_call call;
  bn_begin(&call, ((Model *)self)->handle, NULL);
  code = bn_model_likelihood(((Model *)self)->handle, vi.buf, vi.len / 4, window, stride, bn_look, &call, &sum, &count, &err);
  bn_end(&call);
  PyBuffer_Release(&vi);
  if (code || PyErr_Occurred()) return bn_raise(code, err);
  return Py_BuildValue("dL", sum, (long long)count);
}

static PyObject *model_set_assets(PyObject *self, PyObject *args) {
  char *files, *err = NULL;
  if (bn_forked() || !PyArg_ParseTuple(args, "s", &files)) return NULL;
  int code = bn_model_set_assets(((Model *)self)->handle, files, &err);
  if (code) return bn_raise(code, err);
  Py_RETURN_NONE;
}

static PyObject *model_assets(PyObject *self, PyObject *unused) {
  char *text = NULL, *err = NULL;
  if (bn_forked()) return NULL;
  int code = bn_model_own_assets(((Model *)self)->handle, &text, &err);
  return code ? bn_raise(code, err) : bn_text(text);
}

static PyObject *model_diff(PyObject *self, PyObject *other) {
  char *text = NULL, *err = NULL;
  uintptr_t handle;
  if (bn_forked() || bn_model_handle(other, &handle)) return NULL;
  bn_call call;
  bn_begin(&call, ((Model *)self)->handle, NULL);
  int code = bn_model_diff(((Model *)self)->handle, handle, bn_look, &call, &text, &err);
  bn_end(&call);
  return code ? bn_raise(code, err) : bn_text(text);
}

static PyObject *model_settle(PyObject *self, PyObject *unused) {
  char *err = NULL;
  if (bn_forked()) return NULL;
  bn_call call;
  bn_begin(&call, ((Model *)self)->handle, NULL);
  int code = bn_model_settle(((Model *)self)->handle, bn_look, &call, &err);
  bn_end(&call);
  if (code || PyErr_Occurred()) return bn_raise(code, err);
  Py_RETURN_NONE;
}

static PyObject *model_check(PyObject *self, PyObject *unused) {
  char *err = NULL;
  if (bn_forked()) return NULL;
  int code = bn_model_check(((Model *)self)->handle, &err);
  if (code) return bn_raise(code, err);
  Py_RETURN_NONE;
}

static PyObject *model_start_profile(PyObject *self, PyObject *unused) {
  char *err = NULL;
  if (bn_forked()) return NULL;
  int code = bn_model_start_profile(((Model *)self)->handle, &err);
  if (code) return bn_raise(code, err);
  Py_RETURN_NONE;
}

static PyObject *model_stop_profile(PyObject *self, PyObject *unused) {
  char *text = NULL, *err = NULL;
  if (bn_forked()) return NULL;
  int code = bn_model_stop_profile(((Model *)self)->handle, &text, &err);
  return code ? bn_raise(code, err) : bn_text(text);
}

static PyMethodDef model_methods[] = {
    {"close", model_close, METH_NOARGS, "close(): waits for calls in flight, then gives the memory back."},
    {"info", model_info, METH_NOARGS, "info() -> JSON of the config and of what is in memory."},
    {"save", model_save, METH_VARARGS, "save(path, format, options, progress): 'native', 'hf' or 'gguf', and a JSON object of the format's options -> JSON of the size that a dry run finds, and of warnings."},
    {"assets", model_assets, METH_NOARGS, "assets() -> JSON {name: text} of what came with its stream or was set; null if neither."},
    {"set_assets", model_set_assets, METH_VARARGS, "set_assets(files): JSON {name: text} of what save() puts beside the weights."},
    {"forward", model_forward, METH_VARARGS,
     "forward(ids, lengths, out, hidden): int32 ids of all sequences, int64 lengths, float32 [sum of lengths * vocab] out, or with hidden [sum of "
     "lengths * hidden_size] of states after the final norm."},
    {"diff", model_diff, METH_O, "diff(other) -> JSON list of how the tensors of two models differ."},
    {"settle", model_settle, METH_NOARGS, "settle(): waits until the weights lie where they will stay."},
    {"check", model_check, METH_NOARGS, "check(): raises what was found wrong with the file since it was loaded; does not wait."},
    {"start_profile", model_start_profile, METH_NOARGS, "start_profile(): steps record where their time goes."},
    {"stop_profile", model_stop_profile, METH_NOARGS, "stop_profile() -> JSON of what they recorded."},
    {"likelihood", model_likelihood, METH_VARARGS, "likelihood(ids, window, stride) -> (sum of log p, count)."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot model_slots[] = {
    {Py_tp_dealloc, model_dealloc},
    {Py_tp_methods, model_methods},
    {Py_tp_doc, "A loaded model; made by load() or random()."},
    {0, NULL},
};

static PyType_Spec model_spec = {
    .name = "bitnet_rust._bitnet.Model",
    .basicsize = sizeof(Model),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = model_slots,
};

static PyObject *py_assets(PyObject *module, PyObject *args) {
  PyObject *path = NULL;
  char *text = NULL, *err = NULL;
  if (bn_forked() || !PyArg_ParseTuple(args, "O&", PyUnicode_FSConverter, &path)) return NULL;
  const char *name = PyBytes_AsString(path);
  int code;
  Py_BEGIN_ALLOW_THREADS
  code = bn_model_assets((char *)name, &text, &err);
  Py_END_ALLOW_THREADS
  Py_DECREF(path);
  return code ? bn_raise(code, err) : bn_text(text);
}

// from_tensors(config, names, operands, options)
static PyObject *py_from_tensors(PyObject *module, PyObject *args) {
  char *config, *names, *options, *err = NULL;
  PyObject *operands;
  if (bn_forked() || !PyArg_ParseTuple(args, "ssO!s", &config, &names, &PyTuple_Type, &operands, &options)) return NULL;
  Py_ssize_t n = PyTuple_Size(operands);
  uintptr_t *handles = bn_tensor_handles(operands, n);
  Model *m = handles ? model_new() : NULL;
  if (!m) {
    PyMem_Free(handles);
    return NULL;
  }
  int code;
  bn_call call;
  bn_begin(&call, 0, NULL);
  code = bn_model_from_tensors(config, names, handles, n, options, bn_look, &call, &m->handle, &err);
  bn_end(&call);
  PyMem_Free(handles);
  if (code || PyErr_Occurred()) {
    Py_DECREF(m);
    return bn_raise(code, err);
  }
  return (PyObject *)m;
}

static PyMethodDef functions[] = {
    {"assets", py_assets, METH_VARARGS, "assets(path) -> JSON {name: text} of the files that belong to the model at path."},
    {"load", py_load, METH_VARARGS, "load(path, options, progress) -> Model"},
    {"load_stream", py_load_stream, METH_VARARGS, "load_stream(read, name, size, options, progress) -> Model of what read(at, n) gives."},
    {"from_tensors", py_from_tensors, METH_VARARGS, "from_tensors(config, names, operands, options) -> Model of the text of a config.json and of tensors with JSON names."},
    {"random", py_random, METH_VARARGS, "random(config, seed, options, trainable) -> Model with random weights."},
    {NULL, NULL, 0, NULL},
};

int bn_init_model(PyObject *module) {
  model_type = bn_add_type(module, &model_spec, "Model");
  return model_type ? PyModule_AddFunctions(module, functions) : -1;
}
