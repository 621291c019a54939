//go:build cgo && pyext

// The type Scheduler: continues requests of any number of threads as one batch.
#include "module.h"
#include "_cgo_export.h"

// waiting changes only under the GIL: one thread at a time waits, since the outcomes lie in memory that the next wait reuses.
typedef struct {
  PyObject_HEAD
  uintptr_t handle;
  PyObject *model, *draft;  // keep the weights; draft may be None
  int waiting;
} Scheduler;

static PyTypeObject *scheduler_type;

static void scheduler_dealloc(PyObject *self) {
  Scheduler *s = (Scheduler *)self;
  if (s->handle && !bn_is_forked()) {
    char *err = NULL;
    Py_BEGIN_ALLOW_THREADS
    bn_scheduler_free(s->handle, &err);
    Py_END_ALLOW_THREADS
    free(err);
  }
  Py_XDECREF(s->model);
  Py_XDECREF(s->draft);
  bn_free_object(self);
}

// scheduler(model, options, draft)
static PyObject *py_scheduler(PyObject *module, PyObject *args) {
  PyObject *model, *draft;
  char *options, *err = NULL;
  uintptr_t handle, guessing = 0;
  if (bn_forked() || !PyArg_ParseTuple(args, "OsO", &model, &options, &draft) || bn_model_handle(model, &handle)) return NULL;
  if (draft != Py_None && bn_model_handle(draft, &guessing)) return NULL;
  allocfunc alloc = (allocfunc)PyType_GetSlot(scheduler_type, Py_tp_alloc);
  Scheduler *s = (Scheduler *)alloc(scheduler_type, 0);
  if (!s) return NULL;
  s->model = Py_NewRef(model);
  s->draft = Py_NewRef(draft);
  int code = bn_scheduler_new(handle, guessing, options, &s->handle, &err);
  if (!code) return (PyObject *)s;
  Py_DECREF((PyObject *)s);
  return bn_raise(code, err);
}

static PyObject *scheduler_submit(PyObject *self, PyObject *args) {
  PyObject *ids;
  char *params, *client, *err = NULL;
  long long priority;
  double deadline;
  Py_buffer view;
  if (bn_forked() || !PyArg_ParseTuple(args, "OsO&sd", &ids, &params, bn_whole, &priority, &client, &deadline)) return NULL;
  if (bn_buffer(ids, &view, "token ids", 'i', 0)) return NULL;
  uint64_t id = 0;
  int code;
  Py_BEGIN_ALLOW_THREADS
  code = bn_scheduler_submit(((Scheduler *)self)->handle, view.buf, view.len / 4, params, priority, client, deadline, &id, &err);
  Py_END_ALLOW_THREADS
  PyBuffer_Release(&view);
  return code ? bn_raise(code, err) : PyLong_FromUnsignedLongLong(id);
}

static PyObject *scheduler_cancel(PyObject *self, PyObject *args) {
  unsigned long long id;
  int complete;
  if (!PyArg_ParseTuple(args, "Kp", &id, &complete) || bn_forked()) return NULL;
  char *err = NULL;
  int code;
  Py_BEGIN_ALLOW_THREADS
  code = bn_scheduler_cancel(((Scheduler *)self)->handle, id, complete, &err);
  Py_END_ALLOW_THREADS
  if (code) return bn_raise(code, err);
  Py_RETURN_NONE;
}

// One outcome as (request, id, logprob, finish, top, cached, error).
static PyObject *outcome_tuple(bn_outcome *o, const bn_top *tops) {
  PyObject *error = o->code ? bn_exception(o->code, o->message) : Py_NewRef(Py_None);
  PyObject *top = error ? bn_top_tuple(&o->token, tops) : NULL;
  if (!top) {
    Py_XDECREF(error);
    return NULL;
  }
  return Py_BuildValue("KidONLN", (unsigned long long)o->request, (int)o->token.id, (double)o->token.logprob, bn_finish_name(&o->token), top,
                       (long long)o->cached, error);
}

static PyObject *scheduler_wait(PyObject *self, PyObject *unused) {
  Scheduler *s = (Scheduler *)self;
  if (bn_forked()) return NULL;
  if (s->waiting) return bn_raise(BN_ARGUMENT, strdup("another thread waits for this scheduler: one at a time may"));
  bn_outcome *outcomes = NULL;
  bn_top *tops = NULL;
  int64_t n = 0;
  char *err = NULL;
  int code;
  s->waiting = 1;
  Py_BEGIN_ALLOW_THREADS
  code = bn_scheduler_wait(s->handle, &outcomes, &n, &tops, &err);
  Py_END_ALLOW_THREADS
  s->waiting = 0;
  if (code) return bn_raise(code, err);
  if (!n) Py_RETURN_NONE;
  PyObject *list = PyList_New((Py_ssize_t)n);
  for (int64_t i = 0; i < n; i++) {
    PyObject *tuple = list ? outcome_tuple(&outcomes[i], tops) : NULL;
    if (!list) free(outcomes[i].message);
    if (list && (!tuple || PyList_SetItem(list, (Py_ssize_t)i, tuple))) Py_CLEAR(list);
  }
  return list;
}

static PyObject *scheduler_metrics(PyObject *self, PyObject *unused) {
  if (bn_forked()) return NULL;
  char *text = NULL, *err = NULL;
  int code = bn_scheduler_metrics(((Scheduler *)self)->handle, &text, &err);
  return code ? bn_raise(code, err) : bn_text(text);
}

static PyObject *scheduler_close(PyObject *self, PyObject *drain) {
  int all = PyObject_IsTrue(drain);
  if (all < 0 || bn_forked()) return NULL;
  char *err = NULL;
  bn_call call;
  bn_begin(&call, 0, NULL);
  int code = bn_scheduler_close(((Scheduler *)self)->handle, all, bn_look, &call, &err);
  bn_end(&call);
  if (code || PyErr_Occurred()) return bn_raise(code, err);
  Py_RETURN_NONE;
}

static PyMethodDef scheduler_methods[] = {
    {"submit", scheduler_submit, METH_VARARGS, "submit(ids, params, priority, client, deadline) -> number of the request"},
    {"cancel", scheduler_cancel, METH_VARARGS, "cancel(request, complete): ends a request, unless it has ended."},
    {"wait", scheduler_wait, METH_NOARGS, "wait() -> list of (request, id, logprob, finish, top, cached, error), or None once closed."},
    {"metrics", scheduler_metrics, METH_NOARGS, "metrics() -> JSON of the scheduler's figures."},
    {"close", scheduler_close, METH_O, "close(drain): ends it, after all requests or at once."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot scheduler_slots[] = {
    {Py_tp_dealloc, scheduler_dealloc},
    {Py_tp_methods, scheduler_methods},
    {Py_tp_doc, "Continues requests as one batch; made by scheduler()."},
    {0, NULL},
};

static PyType_Spec scheduler_spec = {
    .name = "bitnet_rust._bitnet.Scheduler",
    .basicsize = sizeof(Scheduler),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = scheduler_slots,
};

static PyMethodDef functions[] = {
    {"scheduler", py_scheduler, METH_VARARGS, "scheduler(model, options, draft) -> Scheduler"},
    {NULL, NULL, 0, NULL},
};

int bn_init_scheduler(PyObject *module) {
  scheduler_type = (PyTypeObject *)bn_add_type(module, &scheduler_spec, "Scheduler");
  return scheduler_type ? PyModule_AddFunctions(module, functions) : -1;
}
