package state

import (
	"reflect"
	"strings"
	"sync"
)

// A shape is what a type's JSON may hold: the fields of an object, or the elements of a
// list or a map. nil: anything.
type shape struct {
	fields map[string]*shape // of a struct
	each   *shape            // of a map, a slice or an array
}

// shapes holds those of the types seen so far: working them out takes longer than
// reading a record.
var shapes sync.Map // reflect.Type → *shape

func shapeOf(t reflect.Type) *shape {
	if s, ok := shapes.Load(t); ok {
		return s.(*shape)
	}
	s := newShape(t)
	shapes.Store(t, s)
	return s
}

func newShape(t reflect.Type) *shape {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case opaque(t):
		return nil
	case t.Kind() == reflect.Struct:
		s := &shape{fields: map[string]*shape{}}
		for _, f := range fieldsOf(t) {
			s.fields[f.name] = newShape(f.typ)
		}
		return s
	case t.Kind() == reflect.Map, t.Kind() == reflect.Slice, t.Kind() == reflect.Array:
		return &shape{each: newShape(t.Elem())}
	}
	return nil
}

// A walker goes through JSON that is known to be valid, and looks for fields of objects
// that their shape lacks.
type walker struct {
	data    []byte
	pos     int
	unknown bool
}

// next skips white space and gives the byte behind it.
func (w *walker) next() byte {
	for {
		switch c := w.data[w.pos]; c {
		case ' ', '\t', '\n', '\r':
			w.pos++
		default:
			return c
		}
	}
}

func (w *walker) value(s *shape) {
	switch w.next() {
	case '{':
		w.list('}', func() {
			name := w.text()
			w.next() // the colon
			w.pos++
			w.value(w.field(s, name))
		})
	case '[':
		var each *shape
		if s != nil {
			each = s.each
		}
		w.list(']', func() { w.value(each) })
	case '"':
		w.text()
	default: // a number, true, false or null
		for w.pos < len(w.data) && !strings.ContainsRune(",]} \t\n\r", rune(w.data[w.pos])) {
			w.pos++
		}
	}
}

// field gives the shape of an object's field, and notes when there is no such field.
// encoding/json takes one that differs in letter case only.
func (w *walker) field(s *shape, name string) *shape {
	if s == nil || s.fields == nil {
		if s != nil {
			return s.each
		}
		return nil
	}
	f, ok := s.fields[name]
	if !ok {
		for known, shape := range s.fields {
			if strings.EqualFold(known, name) {
				return shape
			}
		}
		w.unknown = true
	}
	return f
}

// list goes through the members of an object or a list, up to its end.
func (w *walker) list(end byte, member func()) {
	w.pos++
	for w.next() != end {
		if w.data[w.pos] == ',' {
			w.pos++
			w.next()
		}
		member()
	}
	w.pos++
}

// text skips a string and gives what is between the quotes, escapes as they are: a name
// with an escape is none of ours, or is told to be unknown once too often.
func (w *walker) text() string {
	w.pos++
	start := w.pos
	for w.data[w.pos] != '"' {
		if w.data[w.pos] == '\\' {
			w.pos++
		}
		w.pos++
	}
	w.pos++
	return string(w.data[start : w.pos-1])
}
