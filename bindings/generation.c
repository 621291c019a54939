//go:build cgo && pyext

// The type Generation: continues a batch of prompts, one step at a time.
#include "module.h"
#include "_cgo_export.h"

// busy, open and the handle change only under the GIL. While a thread is in a step (busy) the others are refused, since
// the tokens of the step lie in memory that the next one reuses; a close() then is done by the busy thread.
typedef struct {
  PyObject_HEAD
  uintptr_t handle;
  PyObject *model, *assistant;  // keep the weights; assistant may be None
  int busy, close_after;
} Generation;

static PyObject *generation_type;
static PyObject *finish_names[3];  // None, "stop", "length"

static void generation_dealloc(PyObject *self) {
  Generation *g = (Generation *)self;
  if (g->handle && !bn_is_forked()) {
    char *err = NULL;
    bn_generation_free(g->handle, &err);
    free(err);
  }
  Py_XDECREF(g->model);
  Py_XDECREF(g->assistant);
  bn_free_object(self);
}

// generation(model, ids, lengths, params, assistant, assistant_tokens)
static PyObject *py_generation(PyObject *module, PyObject *args) {
  PyObject *model, *ids, *lengths, *assistant;
  char *params, *err = NULL;
  int tokens;
  uintptr_t handle, guessing = 0;
  Py_buffer vi, vl;
  if (bn_forked() || !PyArg_ParseTuple(args, "OOOsOi", &model, &ids, &lengths, &params, &assistant, &tokens)) return NULL;
  if (assistant != Py_None && bn_model_handle(assistant, &guessing)) return NULL;
  if (bn_model_handle(model, &handle) || bn_buffer(ids, &vi, "token ids", 'i', 0)) return NULL;
  if (bn_buffer(lengths, &vl, "lengths", 'q', 0)) {
    PyBuffer_Release(&vi);
    return NULL;
  }
  allocfunc alloc = (allocfunc)PyType_GetSlot((PyTypeObject *)generation_type, Py_tp_alloc);
  Generation *g = (Generation *)alloc((PyTypeObject *)generation_type, 0);
  int code = BN_OK;
  if (g) {
    g->model = Py_NewRef(model);
    g->assistant = Py_NewRef(assistant);
    code = bn_generation_new(handle, guessing, tokens, vi.buf, vi.len / 4, vl.buf, vl.len / 8, params, &g->handle, &err);
  }
  PyBuffer_Release(&vl);
  PyBuffer_Release(&vi);
  if (code) {
    Py_DECREF(g);
    return bn_raise(code, err);
  }
  return (PyObject *)g;
}

// enter refuses a generation that is busy in another thread.
static int enter(Generation *g) {
  if (bn_forked()) return -1;
  if (!g->busy) return 0;
  bn_raise(BN_ARGUMENT, strdup("this generation is running in another thread: a generation serves one thread at a time"));
  return -1;
}

static int close_now(Generation *g) {
  char *err = NULL;
  int code = bn_generation_close(g->handle, &err);
  if (code) bn_raise(code, err);
  return code ? -1 : 0;
}

PyObject *bn_finish_name(const bn_token *token) { return finish_names[token->finish]; }

PyObject *bn_top_tuple(const bn_token *t, const bn_top *tops) {
  PyObject *top = PyTuple_New(t->top_count);
  for (int32_t i = 0; top && i < t->top_count; i++) {
    const bn_top *alternative = &tops[t->top_start + i];
    PyObject *pair = Py_BuildValue("id", (int)alternative->id, (double)alternative->logprob);
    if (!pair || PyTuple_SetItem(top, i, pair)) Py_CLEAR(top);
  }
  return top;
}

// One token as (sequence, id, logprob, finish, top).
static PyObject *token_tuple(const bn_token *t, const bn_top *tops) {
  PyObject *top = bn_top_tuple(t, tops);
  return top ? Py_BuildValue("iidON", (int)t->sequence, (int)t->id, (double)t->logprob, bn_finish_name(t), top) : NULL;
}

static PyObject *generation_step(PyObject *self, PyObject *unused) {
  Generation *g = (Generation *)self;
  if (enter(g)) return NULL;
  bn_token *tokens = NULL;
  bn_top *tops = NULL;
  int64_t n = 0;
  char *err = NULL;
  int code;
  bn_call call;
  uintptr_t model;
  if (bn_model_handle(g->model, &model)) return NULL;
  g->busy = 1;
  bn_begin(&call, model, NULL);
  code = bn_generation_step(g->handle, bn_look, &call, &tokens, &n, &tops, &err);
  bn_end(&call);
  PyObject *list = NULL;
  if (code || PyErr_Occurred()) {
    bn_raise(code, err);
  } else {
    list = PyList_New((Py_ssize_t)n);
    for (int64_t i = 0; list && i < n; i++) {
      PyObject *tuple = token_tuple(&tokens[i], tops);
      if (!tuple || PyList_SetItem(list, (Py_ssize_t)i, tuple)) Py_CLEAR(list);
    }
  }
  g->busy = 0;
  if (g->close_after && close_now(g)) Py_CLEAR(list);
  return list;
}

static PyObject *generation_finish(PyObject *self, PyObject *number) {
  Generation *g = (Generation *)self;
  long long sequence = PyLong_AsLongLong(number);
  if (PyErr_Occurred() || enter(g)) return NULL;
  char *err = NULL;
  int code = bn_generation_finish(g->handle, sequence, &err);
  if (code) return bn_raise(code, err);
  Py_RETURN_NONE;
}

static PyObject *generation_progress(PyObject *self, PyObject *unused) {
  Generation *g = (Generation *)self;
  if (enter(g)) return NULL;
  int32_t done = 0;
  int64_t read = 0, total = 0;
  char *err = NULL;
  int code = bn_generation_progress(g->handle, &done, &read, &total, &err);
  if (code) return bn_raise(code, err);
  return Py_BuildValue("NLL", PyBool_FromLong(done), (long long)read, (long long)total);
}

static PyObject *generation_close(PyObject *self, PyObject *unused) {
  Generation *g = (Generation *)self;
  if (bn_forked()) return NULL;
  if (g->busy) {
    g->close_after = 1;
  } else if (close_now(g)) {
    return NULL;
  }
  Py_RETURN_NONE;
}

static PyMethodDef generation_methods[] = {
    {"step", generation_step, METH_NOARGS, "step() -> list of (sequence, id, logprob, finish, top); empty while prompts are read."},
    {"finish", generation_finish, METH_O, "finish(sequence): ends one sequence."},
    {"progress", generation_progress, METH_NOARGS, "progress() -> (all finished, prompt tokens read, prompt tokens)."},
    {"close", generation_close, METH_NOARGS, "close(): gives the caches back."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot generation_slots[] = {
    {Py_tp_dealloc, generation_dealloc},
    {Py_tp_methods, generation_methods},
    {Py_tp_doc, "Continues a batch of prompts; made by generation()."},
    {0, NULL},
};

static PyType_Spec generation_spec = {
    .name = "bitnet_rust._bitnet.Generation",
    .basicsize = sizeof(Generation),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = generation_slots,
};

static PyMethodDef functions[] = {
    {"generation", py_generation, METH_VARARGS, 
     "generation(model, ids, lengths, params, assistant, assistant_tokens) -> Generation; None and 0 for no assistant."},
    {NULL, NULL, 0, NULL},
};

int bn_init_generation(PyObject *module) {
  finish_names[0] = Py_NewRef(Py_None);
  finish_names[1] = PyUnicode_InternFromString("stop");
  finish_names[2] = PyUnicode_InternFromString("length");
  generation_type = bn_add_type(module, &generation_spec, "Generation");
  return generation_type && finish_names[1] && finish_names[2] ? PyModule_AddFunctions(module, functions) : -1;
}
