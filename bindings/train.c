//go:build cgo && pyext

// The type TrainingRun: changes the weights of a model, one update at a time.
#include "module.h"
#include "_cgo_export.h"

// busy, close_after and the handle change only under the GIL. A busy run refuses other threads; a close() meanwhile is
// done by the busy thread.
typedef struct {
  PyObject_HEAD
  uintptr_t handle;
  PyObject *model;          // keeps the weights
  PyObject *dataset, *eval;  // keep the data; eval may be None
  int busy, close_after;
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
  Py_XDECREF(r->dataset);
  Py_XDECREF(r->eval);
  bn_free_object(self);
}

// training(model, options, dataset, eval_dataset)
static PyObject *py_training(PyObject *module, PyObject *args) {
  PyObject *model, *dataset, *eval;
  char *options, *err = NULL;
  uintptr_t handle, data, check = 0;
  if (bn_forked() || !PyArg_ParseTuple(args, "OsOO", &model, &options, &dataset, &eval)) return NULL;
  if (bn_model_handle(model, &handle) || bn_dataset_handle(dataset, "dataset", &data)) return NULL;
  if (eval != Py_None && bn_dataset_handle(eval, "eval_dataset", &check)) return NULL;
  allocfunc alloc = (allocfunc)PyType_GetSlot((PyTypeObject *)run_type, Py_tp_alloc);
  TrainingRun *r = (TrainingRun *)alloc((PyTypeObject *)run_type, 0);
  if (!r) return NULL;
  r->model = Py_NewRef(model);
  r->dataset = Py_NewRef(dataset);
  r->eval = Py_NewRef(eval);
  int code = bn_train_new(handle, options, data, check, &r->handle, &err);
  if (code) {
    Py_DECREF(r);
    return bn_raise(code, err);
  }
  return (PyObject *)r;
}

// enter refuses a run that is busy in another thread.
static int enter(TrainingRun *r) {
  if (bn_forked()) return -1;
  if (!r->busy) return 0;
  bn_raise(BN_ARGUMENT, strdup("this training run is busy: it serves one call at a time"));
  return -1;
}

static int close_now(TrainingRun *r) {
  char *err = NULL;
  int code = bn_train_close(r->handle, &err);
  if (code) bn_raise(code, err);
  return code ? -1 : 0;
}

static PyObject *run_step(PyObject *self, PyObject *unused) {
  TrainingRun *r = (TrainingRun *)self;
  bn_record record;
  int32_t updated = 0;
  char *err = NULL;
  bn_call call;
  uintptr_t model;
  if (enter(r) || bn_model_handle(r->model, &model)) return NULL;
  r->busy = 1;
  bn_begin(&call, model, NULL);
  int code = bn_train_step(r->handle, bn_look, &call, &record, &updated, &err);
  bn_end(&call);
  PyObject *result = NULL;
  if (code || PyErr_Occurred()) {
    bn_raise(code, err);
  } else if (updated) {
    result = Py_BuildValue("Lddddd", (long long)record.step, record.loss, record.gradient_norm, record.learning_rate,
                           record.tokens_per_second, record.eval_loss);
  } else {
    result = Py_NewRef(Py_None);
  }
  r->busy = 0;
  if (r->close_after && close_now(r)) Py_CLEAR(result);
  return result;
}

static PyObject *run_evaluate(PyObject *self, PyObject *unused) {
  TrainingRun *r = (TrainingRun *)self;
  double loss = 0;
  char *err = NULL;
  bn_call call;
  uintptr_t model;
  if (enter(r) || bn_model_handle(r->model, &model)) return NULL;
  r->busy = 1;
  bn_begin(&call, model, NULL);
  int code = bn_train_evaluate(r->handle, bn_look, &call, &loss, &err);
  bn_end(&call);
  PyObject *result = code || PyErr_Occurred() ? bn_raise(code, err) : PyFloat_FromDouble(loss);
  r->busy = 0;
  if (r->close_after && close_now(r)) Py_CLEAR(result);
  return result;
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
    {"step", run_step, METH_NOARGS,
     "step() -> (step, loss, gradient norm, learning rate, tokens/s, evaluation loss or NaN); None when all updates are made."},
    {"evaluate", run_evaluate, METH_NOARGS, "evaluate() -> mean loss over the evaluation dataset."},
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
    {"training", py_training, METH_VARARGS, "training(model, options, dataset, eval_dataset) -> TrainingRun"},
    {NULL, NULL, 0, NULL},
};

int bn_init_train(PyObject *module) {
  run_type = bn_add_type(module, &run_spec, "TrainingRun");
  return run_type ? PyModule_AddFunctions(module, functions) : -1;
}
