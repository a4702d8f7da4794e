package state

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Records only ever gain fields, and programs of two releases may run side by side.
// So what a record holds beyond the fields of our type is kept when we write it: a
// newer release's fields, and whatever an operator has added by hand. That goes for
// objects within a record too, those of a map by their key; elements of a list have
// no name by which to find them again.

// decode reads a record, and says whether it holds fields that into's type lacks.
func decode(data []byte, into any) (unknown bool, err error) {
	if err := json.Unmarshal(data, into); err != nil {
		return false, err
	}
	w := walker{data: data}
	w.value(shapeOf(reflect.TypeOf(into)))
	return w.unknown, nil
}

// carry gives the encoded record, of type t, with the fields of the stored one that t lacks.
// Whatever is not an object is given as it is.
func carry(stored, record []byte, t reflect.Type) []byte {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	var was, is map[string]json.RawMessage
	if json.Unmarshal(stored, &was) != nil || json.Unmarshal(record, &is) != nil || was == nil || is == nil {
		return record
	}
	var order []string // the record's fields as our type has them, then what it lacks
	switch {
	case opaque(t):
		return record
	case t.Kind() == reflect.Map && t.Key().Kind() == reflect.String:
		for k := range is {
			if old, ok := was[k]; ok {
				is[k] = carry(old, is[k], t.Elem())
			}
		}
		order = slices.Sorted(maps.Keys(is))
	case t.Kind() == reflect.Struct:
		known := fieldsOf(t)
		lower := map[string]bool{}
		for _, f := range known {
			lower[strings.ToLower(f.name)] = true
			if _, ok := is[f.name]; !ok {
				continue
			}
			order = append(order, f.name)
			if old, ok := was[f.name]; ok {
				is[f.name] = carry(old, is[f.name], f.typ)
			}
		}
		for _, k := range slices.Sorted(maps.Keys(was)) {
			if !lower[strings.ToLower(k)] {
				is[k] = was[k]
				order = append(order, k)
			}
		}
	default:
		return record
	}
	var out bytes.Buffer
	out.WriteByte('{')
	for i, k := range order {
		if i > 0 {
			out.WriteByte(',')
		}
		name, err := json.Marshal(k)
		if err != nil {
			return record
		}
		out.Write(name)
		out.WriteByte(':')
		if json.Compact(&out, is[k]) != nil {
			return record
		}
	}
	out.WriteByte('}')
	return out.Bytes()
}

// opaque says whether a type writes its own JSON, which is nobody else's to look into.
func opaque(t reflect.Type) bool {
	m := reflect.TypeFor[json.Marshaler]()
	return t == reflect.TypeFor[time.Time]() || t.Implements(m) || reflect.PointerTo(t).Implements(m)
}

type field struct {
	name string
	typ  reflect.Type
}

// fieldsOf lists the JSON fields of a struct, those of embedded structs too.
func fieldsOf(t reflect.Type) []field {
	var out []field
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct:
			out = append(out, fieldsOf(f.Type)...)
		case name == "":
			out = append(out, field{f.Name, f.Type})
		default:
			out = append(out, field{name, f.Type})
		}
	}
	return out
}
