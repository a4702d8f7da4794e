package google

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// A mask is a partial response's choice of fields: name → its choice of fields, where
// none means all.
type mask map[string]mask

// parseMask reads "a,b.c,d(e,f/g)".
func parseMask(s string) (mask, error) {
	m := mask{}
	rest, err := m.parse(s)
	if err == nil && rest != "" {
		err = bad("Invalid field selection %s", rest)
	}
	return m, err
}

func (m mask) parse(s string) (rest string, err error) {
	for s != "" && s[0] != ')' {
		at := m
		for {
			n := strings.IndexAny(s, ",./()")
			if n < 0 {
				n = len(s)
			}
			name := s[:n]
			if name == "" {
				return s, bad("Invalid field selection %s", s)
			}
			if at[name] == nil {
				at[name] = mask{}
			}
			at, s = at[name], s[n:]
			if s == "" || s[0] != '.' && s[0] != '/' {
				break
			}
			s = s[1:]
		}
		if strings.HasPrefix(s, "(") {
			if s, err = at.parse(s[1:]); err != nil {
				return s, err
			}
			if s == "" {
				return s, bad("Invalid field selection: a parenthesis is not closed")
			}
			s = s[1:]
		}
		if !strings.HasPrefix(s, ",") {
			break
		}
		if s = s[1:]; s == "" || s[0] == ')' {
			return s, bad("Invalid field selection: a name is missing")
		}
	}
	return s, nil
}

// paths lists a mask's leaves, e.g. gridProperties.frozenRowCount.
func (m mask) paths() []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if len(m[name]) == 0 {
			out = append(out, name)
		}
		for _, p := range m[name].paths() {
			out = append(out, name+"."+p)
		}
	}
	return out
}

// check says whether a mask names fields that a type has, by their names in JSON.
func (m mask) check(t reflect.Type, path string) error {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	for name, sub := range m {
		if name == "*" {
			continue
		}
		var field reflect.Type
		for i := 0; t.Kind() == reflect.Struct && i < t.NumField(); i++ {
			if tag, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); tag == name {
				field = t.Field(i).Type
			}
		}
		if field == nil {
			return bad("Invalid field selection %s%s", path, name)
		}
		if err := sub.check(field, path+name+"."); err != nil {
			return err
		}
	}
	return nil
}

// keep applies a mask to decoded JSON.
func (m mask) keep(v any) any {
	if _, all := m["*"]; all || len(m) == 0 {
		return v
	}
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = m.keep(v[i])
		}
	case map[string]any:
		for name := range v {
			sub, ok := m[name]
			if !ok {
				delete(v, name)
				continue
			}
			v[name] = sub.keep(v[name])
		}
	}
	return v
}
