//go:build cgo && pyext

// Tensors and arrays of other libraries over the same memory, by DLPack: capsules that hold a description, and who is to be
// told when it is not used any more.
#include <stdatomic.h>

#include "module.h"
#include "_cgo_export.h"

typedef struct Managed {
  DLTensor tensor;
  void *context;
  void (*deleter)(struct Managed *);
} Managed;

// The same since DLPack 1.0.
typedef struct Versioned {
  uint32_t major, minor;
  void *context;
  void (*deleter)(struct Versioned *);
  uint64_t flags;
  DLTensor tensor;
} Versioned;

enum { READ_ONLY = 1, MAJOR = 1 };

static const char *const managed_name = "dltensor", *const versioned_name = "dltensor_versioned";

// --- from others ---------------------------------------------------------------------------------------------------------

static void tell(void *managed, int versioned) {
  if (versioned) {
    Versioned *v = managed;
    if (v->deleter) v->deleter(v);
  } else {
    Managed *m = managed;
    if (m->deleter) m->deleter(m);
  }
}

// Go's collector finds out on its own thread, where a deleter, which may need the GIL, must not run: it could wait for an
// interpreter that has ended.
typedef struct Done {
  void *managed;
  int versioned;
  struct Done *next;
} Done;

static _Atomic(Done *) all_done;

void bn_dlpack_done(void *managed, int versioned) {
  Done *d = malloc(sizeof *d);
  if (!d) return;  // the memory is lost
  *d = (Done){.managed = managed, .versioned = versioned, .next = atomic_load(&all_done)};
  while (!atomic_compare_exchange_weak(&all_done, &d->next, d)) {
  }
}

void bn_dlpack_drain(void) {
  if (!atomic_load_explicit(&all_done, memory_order_relaxed)) return;
  for (Done *d = atomic_exchange(&all_done, NULL), *next; d; d = next) {
    next = d->next;
    tell(d->managed, d->versioned);
    free(d);
  }
}

// from_dlpack(capsule, bits)
static PyObject *py_from_dlpack(PyObject *module, PyObject *args) {
  PyObject *capsule;
  int bits;
  if (bn_forked() || !PyArg_ParseTuple(args, "Op", &capsule, &bits)) return NULL;
  bn_dlpack_drain();
  int versioned = PyCapsule_IsValid(capsule, versioned_name);
  if (!versioned && !PyCapsule_IsValid(capsule, managed_name)) {
    PyErr_SetString(PyExc_BufferError, "expected a capsule of DLPack that was not used before");
    return NULL;
  }
  const char *name = versioned ? versioned_name : managed_name;
  void *managed = PyCapsule_GetPointer(capsule, name);
  if (versioned && ((Versioned *)managed)->major != MAJOR) {
    PyErr_Format(PyExc_BufferError, "the array comes with DLPack %u, expected %d", (unsigned)((Versioned *)managed)->major, MAJOR);
    return NULL;
  }
  if (versioned && ((Versioned *)managed)->flags & READ_ONLY) {
    PyErr_SetString(PyExc_BufferError, "the array cannot be written to, and a tensor over its memory could: Tensor(array) copies it");
    return NULL;
  }
  uintptr_t *out = calloc(1, sizeof *out);
  if (!out) return PyErr_NoMemory();
  // Under its new name the capsule leaves the memory alone when it goes; under its own it gives it back, as after an error here.
  if (PyCapsule_SetName(capsule, versioned ? "used_dltensor_versioned" : "used_dltensor")) {
    free(out);
    return NULL;
  }
  char *err = NULL;
  int code = bn_dlpack_import(versioned ? &((Versioned *)managed)->tensor : &((Managed *)managed)->tensor, bits, managed, versioned, out, &err);
  if (code) {
    free(out);
    PyCapsule_SetName(capsule, name);
    return bn_raise(code, err);
  }
  PyObject *list = bn_tensor_list(out, 1);
  PyObject *handle = list ? PySequence_GetItem(list, 0) : NULL;
  Py_XDECREF(list);
  return handle;
}

// --- to others -----------------------------------------------------------------------------------------------------------

// Deleters run on any thread, without the GIL.
static void give_back(DLTensor *tensor, void *share) {
  free(tensor->shape);
  if (!bn_is_forked()) bn_dlpack_free((uintptr_t)share);
}

static void delete_managed(Managed *m) {
  give_back(&m->tensor, m->context);
  free(m);
}

static void delete_versioned(Versioned *v) {
  give_back(&v->tensor, v->context);
  free(v);
}

// A capsule that nobody used has the description still.
static void end_capsule(PyObject *capsule) {
  if (PyCapsule_IsValid(capsule, managed_name)) {
    delete_managed(PyCapsule_GetPointer(capsule, managed_name));
  } else if (PyCapsule_IsValid(capsule, versioned_name)) {
    delete_versioned(PyCapsule_GetPointer(capsule, versioned_name));
  }
}

// to_dlpack(operands, versioned, bits)
static PyObject *py_to_dlpack(PyObject *module, PyObject *args) {
  PyObject *operands;
  int versioned, bits;
  if (bn_forked() || !PyArg_ParseTuple(args, "O!pp", &PyTuple_Type, &operands, &versioned, &bits)) return NULL;
  uintptr_t *handles = bn_tensor_handles(operands, 1), share = 0;
  if (!handles) return NULL;
  DLTensor tensor;
  char *err = NULL;
  int code = bn_dlpack_export(handles[0], bits, &tensor, &share, &err);
  PyMem_Free(handles);
  if (code) return bn_raise(code, err);
  PyObject *capsule = NULL;
  if (versioned) {
    Versioned *v = malloc(sizeof *v);
    if (v) {
      *v = (Versioned){.major = MAJOR, .context = (void *)share, .deleter = delete_versioned, .tensor = tensor};
      if (!(capsule = PyCapsule_New(v, versioned_name, end_capsule))) delete_versioned(v);
      return capsule;
    }
  } else {
    Managed *m = malloc(sizeof *m);
    if (m) {
      *m = (Managed){.tensor = tensor, .context = (void *)share, .deleter = delete_managed};
      if (!(capsule = PyCapsule_New(m, managed_name, end_capsule))) delete_managed(m);
      return capsule;
    }
  }
  give_back(&tensor, (void *)share);
  return PyErr_NoMemory();
}

static PyMethodDef functions[] = {
    {"from_dlpack", py_from_dlpack, METH_VARARGS, "from_dlpack(capsule, bits) -> TensorHandle over the array's memory; with bits, uint16 is bfloat16."},
    {"to_dlpack", py_to_dlpack, METH_VARARGS, "to_dlpack(operands, versioned, bits) -> capsule over the memory of the one operand; with bits, bfloat16 is uint16."},
    {NULL, NULL, 0, NULL},
};

int bn_init_dlpack(PyObject *module) { return PyModule_AddFunctions(module, functions); }
