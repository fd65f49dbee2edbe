// Asks for the memory of record objects before they are read: a batch is larger than the caches. It only prefetches;
// what it guesses of an object's layout can make it slow, never wrong.
#pragma once

#include <Python.h>

struct TbAsked {  // where two attributes lie among an instance's inline values; -1 not known
    PyTypeObject* type = nullptr;
    int first = -1, second = -1;
};

#if PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x030C0000
static inline PyObject** tb_inline_values(PyObject* record) {
    if (!(Py_TYPE(record)->tp_flags & Py_TPFLAGS_MANAGED_DICT)) return nullptr;
    return ((PyObject***)record)[-4];
}
static inline int tb_inline_number(PyObject** values) { return ((unsigned char*)values)[-2]; }
#else
static inline PyObject** tb_inline_values(PyObject*) { return nullptr; }
static inline int tb_inline_number(PyObject**) { return 0; }
#endif

static inline void tb_learn_record(TbAsked* asked, PyObject* record, PyObject* first, PyObject* second) {
    if (asked->type == Py_TYPE(record)) return;
    *asked = TbAsked();
    asked->type = Py_TYPE(record);
    PyObject** const values = tb_inline_values(record);
    if (!values) return;
    for (int i = tb_inline_number(values) - 1; i >= 0; i--) {
        if (values[i] == first) asked->first = i;
        if (values[i] == second) asked->second = i;
    }
}

// Far ahead, nearer, and soon before the record at `at` is read.
static inline void tb_ask_records(const TbAsked* asked, PyObject** records, Py_ssize_t at, Py_ssize_t number) {
    if (at + 24 < number) {
        __builtin_prefetch((char*)records[at + 24] - 32);
        __builtin_prefetch((char*)records[at + 24] + 8);
    }
    if (at + 16 < number) {
        PyObject** const values = tb_inline_values(records[at + 16]);
        if (values) {
            __builtin_prefetch((char*)values - 8);
            __builtin_prefetch((char*)values + 64);
        }
    }
    if (at + 8 < number && asked->type == Py_TYPE(records[at + 8])) {
        PyObject** const values = tb_inline_values(records[at + 8]);
        if (!values) return;
        const int used = tb_inline_number(values);
        if (asked->first >= 0 && asked->first < used) __builtin_prefetch(values[asked->first]);
        if (asked->second >= 0 && asked->second < used) __builtin_prefetch(values[asked->second]);
    }
}

static inline PyObject** tb_items(PyObject* list) { return ((PyListObject*)list)->ob_item; }
