// Reads three attributes of many records of one type. Their memory is loaded ahead, because a batch is larger than the
// caches. Where CPython 3.11 keeps the attributes of a type inline, at places that the type fixes, they are read there;
// everywhere else they are read by name.
#pragma once

#include <Python.h>

#include "wide.hpp"

struct TbAsked {  // where the attributes lie among an instance's inline values; -1: not known
    PyTypeObject* type = nullptr;
    int places[3] = {-1, -1, -1};
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

// Learns the places from a record and three of its attributes, which were just read by name. A place is known where
// only the instance can have the attribute (the type has none of that name and does not look one up its own way) and
// the instance holds the object at one place.
static inline void tb_learn_record(TbAsked* asked, PyObject* record, PyObject* const* names, PyObject* const* found) {
    *asked = TbAsked();
    asked->type = Py_TYPE(record);
    PyObject** const values = tb_inline_values(record);
    if (!values || asked->type->tp_getattro != PyObject_GenericGetAttr) return;
    for (int k = 0; k < 3; k++) {
        if (_PyType_Lookup(asked->type, names[k])) continue;
        int places = 0;
        for (int i = tb_inline_number(values) - 1; i >= 0; i--) {
            if (values[i] != found[k]) continue;
            asked->places[k] = i;
            places++;
        }
        if (places != 1) asked->places[k] = -1;
    }
}

// Returns the inline values of a record of the learned type, if all three attributes are known and set; else NULL. No
// code of the record may run between learning and this.
static inline PyObject** tb_known_values(const TbAsked* asked, PyObject* record) {
    if (asked->type != Py_TYPE(record)) return nullptr;
    PyObject** const values = tb_inline_values(record);
    if (!values) return nullptr;
    const int used = tb_inline_number(values);
    for (int place : asked->places)
        if (place < 0 || place >= used || !values[place]) return nullptr;
    return values;
}

// Loads records ahead: the object, then its values, then the attributes, each before the next is needed.
static inline void tb_ask_records(const TbAsked* asked, PyObject** records, Py_ssize_t at, Py_ssize_t number) {
    if (at + 24 < number) {
        tb_prefetch((char*)records[at + 24] - 32);
        tb_prefetch((char*)records[at + 24] + 8);
    }
    if (at + 16 < number) {
        PyObject** const values = tb_inline_values(records[at + 16]);
        if (values) {
            tb_prefetch((char*)values - 8);
            tb_prefetch((char*)values + 64);
        }
    }
    if (at + 8 < number && asked->type == Py_TYPE(records[at + 8])) {
        PyObject** const values = tb_inline_values(records[at + 8]);
        if (!values) return;
        const int used = tb_inline_number(values);
        for (int k = 0; k < 2; k++)  // most records share one empty tuple as headers
            if (asked->places[k] >= 0 && asked->places[k] < used) tb_prefetch(values[asked->places[k]]);
    }
}

static inline PyObject** tb_items(PyObject* list) { return ((PyListObject*)list)->ob_item; }
