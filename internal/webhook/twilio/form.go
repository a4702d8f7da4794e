package twilio

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"

	"leadpipe/internal/webhook"
)

// A form has its fields in the order of their names, each once.
type form []field

type field struct{ name, value string }

// mostFields is how many a form may have, as in net/url.
const mostFields = 10_000

// parse reads a body as url.ParseQuery does, and takes the first of several values. It
// says whether all of it can be read.
func parse(body string) (form, bool) {
	n := strings.Count(body, "&") + 1
	if n > mostFields {
		return nil, false
	}
	f := make(form, 0, n+1) // and one that is added
	for part := range strings.SplitSeq(body, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		name, err := url.QueryUnescape(name)
		if err != nil || strings.Contains(part, ";") {
			return nil, false
		}
		if value, err = url.QueryUnescape(value); err != nil {
			return nil, false
		}
		f = append(f, field{name, value})
	}
	slices.SortStableFunc(f, func(a, b field) int { return strings.Compare(a.name, b.name) })
	return slices.CompactFunc(f, func(a, b field) bool { return a.name == b.name }), true
}

func (f form) find(name string) (int, bool) {
	return slices.BinarySearchFunc(f, name, func(x field, name string) int { return strings.Compare(x.name, name) })
}

// get gives a field's value, or nothing.
func (f form) get(name string) string {
	if i, ok := f.find(name); ok {
		return f[i].value
	}
	return ""
}

// with gives the form with a field in place of the one of that name.
func (f form) with(name, value string) form {
	i, ok := f.find(name)
	if ok {
		f[i].value = value
		return f
	}
	return slices.Insert(f, i, field{name, value})
}

// sign adds to an HMAC what Twilio signs: the URL, and each field's name and value.
func (f form) sign(m *webhook.MAC, base, requestURI string) {
	m.Text(base)
	m.Text(requestURI)
	for _, x := range f {
		m.Text(x.name)
		m.Text(x.value)
	}
}

// json gives the form as one object.
func (f form) json() []byte {
	size := 2
	for _, x := range f {
		size += len(x.name) + len(x.value) + 6
	}
	out := append(make([]byte, 0, size), '{')
	for i, x := range f {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(quoted(out, x.name), ':')
		out = quoted(out, x.value)
	}
	return append(out, '}')
}

// quoted adds a text as encoding/json writes it.
func quoted(out []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || strings.IndexByte(`"\&<>`, c) >= 0 {
			text, _ := json.Marshal(s) // of a string there is no error
			return append(out, text...)
		}
	}
	out = append(out, '"')
	out = append(out, s...)
	return append(out, '"')
}
