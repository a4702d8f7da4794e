// Package rawjson reads a few members of a JSON text without decoding the rest of it.
// The whole text is checked: what encoding/json refuses is refused here, and only that.
//
// Of a member that is there twice the last counts, as in encoding/json. Names are
// compared to the letter, where encoding/json does not mind their case.
package rawjson

import (
	"encoding/json"
	"errors"
)

// ErrInvalid says that a text is not one JSON value.
var ErrInvalid = errors.New("not JSON")

// maxDepth is how deep arrays and objects may be nested, as in encoding/json.
const maxDepth = 10000

// A Member is a member of an object that somebody wants to know.
type Member struct {
	Name    string
	Members []Member // what is wanted of it, where it is an object
	// Value is the member's text as it came, without the space around it. nil: it is not
	// there. It is a part of what was read.
	Value []byte
}

// Read checks that data is one JSON value, and fills in the members of it, if it is an
// object. Error: ErrInvalid, and the members are of no use.
func Read(data []byte, members []Member) error {
	forget(members)
	s := scanner{data: data}
	s.space()
	if !s.value(members) {
		return ErrInvalid
	}
	if s.space(); s.at != len(data) {
		return ErrInvalid
	}
	return nil
}

// Elements calls f for each element of a list, in order, until f says false. It says
// whether the value is a list of which f has seen all. The value must be valid, as one
// of Read is.
func Elements(value []byte, f func(element []byte) bool) bool {
	s := scanner{data: value}
	if !s.eat('[') {
		return false
	}
	s.space()
	if s.eat(']') {
		return true
	}
	for {
		s.space()
		start := s.at
		if !s.value(nil) || !f(value[start:s.at]) {
			return false
		}
		s.space()
		if !s.eat(',') {
			return s.eat(']')
		}
	}
}

// Text gives the text of a value that is a JSON string.
func Text(value []byte) (string, bool) {
	if len(value) < 2 || value[0] != '"' {
		return "", false
	}
	for _, c := range value[1 : len(value)-1] {
		if c == '\\' || c >= 0x80 { // to be decoded, or perhaps no UTF-8
			var s string
			err := json.Unmarshal(value, &s)
			return s, err == nil
		}
	}
	return string(value[1 : len(value)-1]), true
}

// Missing says whether a value is not there, or null.
func Missing(value []byte) bool { return value == nil || string(value) == "null" }

// Object says whether a valid value is an object.
func Object(value []byte) bool { return len(value) > 0 && value[0] == '{' }

func forget(members []Member) {
	for i := range members {
		members[i].Value = nil
		forget(members[i].Members)
	}
}

// A scanner walks over a text. Its methods say whether what they expect is there, and
// leave at behind it.
type scanner struct {
	data  []byte
	at    int
	depth int
}

func (s *scanner) eat(c byte) bool {
	if s.at < len(s.data) && s.data[s.at] == c {
		s.at++
		return true
	}
	return false
}

func (s *scanner) space() {
	for s.at < len(s.data) {
		switch s.data[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return
		}
	}
}

func (s *scanner) value(members []Member) bool {
	if s.at == len(s.data) {
		return false
	}
	switch c := s.data[s.at]; c {
	case '{':
		return s.object(members)
	case '[':
		return s.list()
	case '"':
		_, ok := s.text()
		return ok
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	default:
		return s.number()
	}
}

func (s *scanner) object(members []Member) bool {
	if s.depth++; s.depth > maxDepth {
		return false
	}
	s.at++
	s.space()
	for !s.eat('}') {
		start := s.at
		escaped, ok := s.text()
		if !ok {
			return false
		}
		var m *Member
		if len(members) > 0 {
			m = find(members, s.data[start:s.at], escaped)
		}
		s.space()
		if !s.eat(':') {
			return false
		}
		s.space()
		start = s.at
		var inner []Member
		if m != nil {
			inner = m.Members
			forget(inner)
		}
		if !s.value(inner) {
			return false
		}
		if m != nil {
			m.Value = s.data[start:s.at:s.at]
		}
		s.space()
		if s.eat(',') {
			s.space()
			if s.at < len(s.data) && s.data[s.at] == '}' {
				return false
			}
		} else if s.at == len(s.data) || s.data[s.at] != '}' {
			return false
		}
	}
	s.depth--
	return true
}

// find gives the member of a quoted name.
func find(members []Member, quoted []byte, escaped bool) *Member {
	name := quoted[1 : len(quoted)-1]
	if escaped {
		decoded, _ := Text(quoted)
		name = []byte(decoded)
	}
	for i := range members {
		if members[i].Name == string(name) {
			return &members[i]
		}
	}
	return nil
}

func (s *scanner) list() bool {
	if s.depth++; s.depth > maxDepth {
		return false
	}
	s.at++
	s.space()
	if !s.eat(']') {
		for {
			s.space()
			if !s.value(nil) {
				return false
			}
			if s.space(); s.eat(',') {
				continue
			}
			if !s.eat(']') {
				return false
			}
			break
		}
	}
	s.depth--
	return true
}

// text walks over a string, and says whether a character of it is escaped.
func (s *scanner) text() (escaped, ok bool) {
	if !s.eat('"') {
		return false, false
	}
	data, at := s.data, s.at
	for at < len(data) {
		switch c := data[at]; {
		case c == '"':
			s.at = at + 1
			return escaped, true
		case c < ' ':
			return false, false
		case c == '\\':
			escaped = true
			n := escape(data[at:])
			if n == 0 {
				return false, false
			}
			at += n
		default:
			at++
		}
	}
	return false, false
}

// escape is how many bytes an escape takes; 0: it is none.
func escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) < 6 {
			return 0
		}
		for _, c := range b[2:6] {
			if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
				return 0
			}
		}
		return 6
	}
	return 0
}

func (s *scanner) word(w string) bool {
	if len(s.data)-s.at < len(w) || string(s.data[s.at:s.at+len(w)]) != w {
		return false
	}
	s.at += len(w)
	return true
}

func (s *scanner) number() bool {
	s.eat('-')
	if !s.eat('0') && !s.digits() {
		return false
	}
	if s.eat('.') && !s.digits() {
		return false
	}
	if s.eat('e') || s.eat('E') {
		if !s.eat('+') {
			s.eat('-')
		}
		return s.digits()
	}
	return true
}

// digits walks over one digit or more.
func (s *scanner) digits() bool {
	start := s.at
	for s.at < len(s.data) && s.data[s.at] >= '0' && s.data[s.at] <= '9' {
		s.at++
	}
	return s.at > start
}
