//go:build cgo && pyext

// The type TrainingRun: changes the weights of a model.
#include "module.h"
#include "_cgo_export.h"

// The flags and the handle change only under the GIL. A busy run refuses other calls, except of a callback; a close()
// meanwhile is done by the busy thread.
typedef struct {
  PyObject_HEAD
  uintptr_t handle;
  PyObject *model, *teacher;  // keep the weights; teacher may be None
  PyObject *dataset, *eval;  // keep the data; eval may be None
  int busy, listening, close_after;  // listening: Python runs a callback of the call that is busy
  unsigned long thread;              // of that call
} TrainingRun;

static PyObject *run_type;

static void run_dealloc(PyObject *self) {
  TrainingRun *r = (TrainingRun *)self;
  if (r->handle && !bn_is_forked()) {
    char *err = NULL;
    bn_train_free(r->handle, &err);
    free(err);
  }
  Py_XDECREF(r->model);
  Py_XDECREF(r->teacher);
  Py_XDECREF(r->dataset);
  Py_XDECREF(r->eval);
  bn_free_object(self);
}

static PyObject *py_check_training(PyObject *module, PyObject *args) {
  char *options, *err = NULL;
  int teacher;
  if (bn_forked() || !PyArg_ParseTuple(args, "sp", &options, &teacher)) return NULL;
  int code = bn_train_check(options, teacher, &err);
  if (code) return bn_raise(code, err);
  Py_RETURN_NONE;
}

// training(model, options, dataset, eval_dataset, teacher)
static PyObject *py_training(PyObject *module, PyObject *args) {
  PyObject *model, *dataset, *eval, *teacher;
  char *options, *err = NULL;
  uintptr_t handle, data, check = 0, tutor = 0;
  if (bn_forked() || !PyArg_ParseTuple(args, "OsOOO", &model, &options, &dataset, &eval, &teacher)) return NULL;
  if (bn_model_handle(model, &handle) || bn_dataset_handle(dataset, "dataset", &data)) return NULL;
  if (eval != Py_None && bn_dataset_handle(eval, "eval_dataset", &check)) return NULL;
  if (teacher != Py_None && bn_model_handle(teacher, &tutor)) return NULL;
  allocfunc alloc = (allocfunc)PyType_GetSlot((PyTypeObject *)run_type, Py_tp_alloc);
  TrainingRun *r = (TrainingRun *)alloc((PyTypeObject *)run_type, 0);
  if (!r) return NULL;
  r->model = Py_NewRef(model);
  r->teacher = Py_NewRef(teacher);
  r->dataset = Py_NewRef(dataset);
  r->eval = Py_NewRef(eval);
  int code = bn_train_new(handle, options, data, check, tutor, &r->handle, &err);
  if (code) {
    Py_DECREF(r);
    return bn_raise(code, err);
  }
  return (PyObject *)r;
}

// What the flags were before a call.
typedef struct {
  int busy, listening;
} flags;

// enter refuses a run that is busy, unless the caller is its callback.
static int enter(TrainingRun *r, flags *before) {
  if (bn_forked()) return -1;
  *before = (flags){r->busy, r->listening};
  unsigned long thread = PyThread_get_thread_ident();
  if (r->busy && !(r->listening && r->thread == thread)) {
    bn_raise(BN_ARGUMENT, strdup("this training run is busy: it serves one call at a time"));
    return -1;
  }
  r->busy = 1;
  r->listening = 0;
  r->thread = thread;
  return 0;
}

static int close_now(TrainingRun *r) {
  char *err = NULL;
  int code = bn_train_close(r->handle, &err);
  if (code) bn_raise(code, err);
  return code ? -1 : 0;
}

// leave gives back result, or NULL when a close() that came meanwhile fails.
static PyObject *leave(TrainingRun *r, flags before, PyObject *result) {
  r->busy = before.busy;
  r->listening = before.listening;
  if (!r->busy && r->close_after && close_now(r)) Py_CLEAR(result);
  return result;
}

// A call of train(); the bn_call stands first, since bn_look gets the same pointer.
typedef struct {
  bn_call call;
  TrainingRun *run;
  PyObject *handler;  // callable(kind, text) -> text or None
} train_call;

static int on_event(void *state, const char *kind, const char *text, char **answer) {
  train_call *t = state;
  uintptr_t model = t->call.model;
  PyEval_RestoreThread(t->call.released);
  t->call.model = 0;  // the callback may use and close it
  t->run->listening = 1;
  PyObject *result = PyObject_CallFunction(t->handler, "ss", kind, text);
  if (result && result != Py_None) {
    PyObject *bytes = PyUnicode_AsUTF8String(result);
    if (bytes) *answer = strdup(PyBytes_AsString(bytes));
    Py_XDECREF(bytes);
  }
  int status = PyErr_Occurred() ? -1 : 0;
  Py_XDECREF(result);
  t->run->listening = 0;
  t->call.model = model;
  t->call.released = PyEval_SaveThread();
  return status;
}

static PyObject *run_train(PyObject *self, PyObject *handler) {
  TrainingRun *r = (TrainingRun *)self;
  char *err = NULL;
  train_call t = {.run = r, .handler = handler};
  uintptr_t model;
  flags before;
  if (bn_model_handle(r->model, &model) || enter(r, &before)) return NULL;
  if (before.busy) {
    bn_raise(BN_ARGUMENT, strdup("this training run is under way: a callback cannot start it again"));
    return leave(r, before, NULL);
  }
  bn_begin(&t.call, model, NULL);
  int code = bn_train_run(r->handle, bn_look, on_event, &t, &err);
  bn_end(&t.call);
  return leave(r, before, code || PyErr_Occurred() ? bn_raise(code, err) : Py_NewRef(Py_None));
}

static PyObject *run_evaluate(PyObject *self, PyObject *unused) {
  TrainingRun *r = (TrainingRun *)self;
  char *text = NULL, *err = NULL;
  bn_call call;
  uintptr_t model;
  flags before;
  if (bn_model_handle(r->model, &model) || enter(r, &before)) return NULL;
  bn_begin(&call, model, NULL);
  int code = bn_train_evaluate(r->handle, bn_look, &call, &text, &err);
  bn_end(&call);
  if (code || PyErr_Occurred()) {
    free(text);
    return leave(r, before, bn_raise(code, err));
  }
  return leave(r, before, bn_text(text));
}

// resume(path, optional)
static PyObject *run_resume(PyObject *self, PyObject *args) {
  TrainingRun *r = (TrainingRun *)self;
  PyObject *path;
  int optional;
  char *text = NULL, *err = NULL;
  bn_call call;
  flags before;
  if (!PyArg_ParseTuple(args, "O&p", PyUnicode_FSConverter, &path, &optional)) return NULL;
  if (enter(r, &before)) {
    Py_DECREF(path);
    return NULL;
  }
  bn_begin(&call, 0, NULL);
  int code = bn_train_resume(r->handle, PyBytes_AsString(path), optional, &text, &err);
  bn_end(&call);
  Py_DECREF(path);
  return leave(r, before, code ? bn_raise(code, err) : bn_text(text));
}

// save(path)
static PyObject *run_save(PyObject *self, PyObject *args) {
  TrainingRun *r = (TrainingRun *)self;
  PyObject *path;
  char *text = NULL, *err = NULL;
  bn_call call;
  flags before;
  if (!PyArg_ParseTuple(args, "O&", PyUnicode_FSConverter, &path)) return NULL;
  if (enter(r, &before)) {
    Py_DECREF(path);
    return NULL;
  }
  bn_begin(&call, 0, NULL);
  int code = bn_train_save(r->handle, PyBytes_AsString(path), &text, &err);
  bn_end(&call);
  Py_DECREF(path);
  return leave(r, before, code ? bn_raise(code, err) : bn_text(text));
}

// optimizer(object, load)
static PyObject *run_optimizer(PyObject *self, PyObject *args) {
  TrainingRun *r = (TrainingRun *)self;
  PyObject *object;
  int load;
  char *err = NULL;
  uintptr_t handle;
  flags before;
  if (!PyArg_ParseTuple(args, "Op", &object, &load) || bn_object_handle(object, &handle) || enter(r, &before)) return NULL;
  int code = bn_train_optimizer(r->handle, handle, load, &err);
  return leave(r, before, code ? bn_raise(code, err) : Py_NewRef(Py_None));
}

static PyObject *run_state(PyObject *self, PyObject *unused) {
  TrainingRun *r = (TrainingRun *)self;
  char *text = NULL, *err = NULL;
  flags before;
  if (enter(r, &before)) return NULL;
  int code = bn_train_state(r->handle, &text, &err);
  return leave(r, before, code ? bn_raise(code, err) : bn_text(text));
}

static PyObject *run_close(PyObject *self, PyObject *unused) {
  TrainingRun *r = (TrainingRun *)self;
  if (bn_forked()) return NULL;
  if (r->busy) {
    r->close_after = 1;
  } else if (close_now(r)) {
    return NULL;
  }
  Py_RETURN_NONE;
}

static PyMethodDef run_methods[] = {
    {"train", run_train, METH_O,
     "train(handler): makes the remaining updates; handler(kind, JSON) hears of them and may answer JSON."},
    {"evaluate", run_evaluate, METH_NOARGS, "evaluate() -> JSON of the scores of the evaluation dataset."},
    {"resume", run_resume, METH_VARARGS, "resume(path, optional) -> JSON: continues from a checkpoint."},
    {"save", run_save, METH_VARARGS, "save(path) -> JSON of the path: writes a checkpoint, with '' into the run's directory."},
    {"optimizer", run_optimizer, METH_VARARGS, "optimizer(object, load): takes over the state of an optimizer, or gives it that of the run."},
    {"state", run_state, METH_NOARGS, "state() -> JSON of how far the run is."},
    {"close", run_close, METH_NOARGS, "close(): gives the optimizer's memory back."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot run_slots[] = {
    {Py_tp_dealloc, run_dealloc},
    {Py_tp_methods, run_methods},
    {Py_tp_doc, "Trains a model; made by training()."},
    {0, NULL},
};

static PyType_Spec run_spec = {
    .name = "bitnet_rust._bitnet.TrainingRun",
    .basicsize = sizeof(TrainingRun),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = run_slots,
};

static PyMethodDef functions[] = {
    {"check_training", py_check_training, METH_VARARGS, "check_training(options, teacher): refuses options that cannot be."},
    {"training", py_training, METH_VARARGS, "training(model, options, dataset, eval_dataset, teacher) -> TrainingRun"},
    {NULL, NULL, 0, NULL},
};

int bn_init_train(PyObject *module) {
  run_type = bn_add_type(module, &run_spec, "TrainingRun");
  return run_type ? PyModule_AddFunctions(module, functions) : -1;
}
