package rawjson_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"leadpipe/internal/rawjson"
)

// wanted are members at two depths, some of one name.
func wanted() []rawjson.Member {
	return []rawjson.Member{{Name: "id"}, {Name: "a", Members: []rawjson.Member{{Name: "id"}, {Name: "b", Members: []rawjson.Member{{Name: "id"}, {Name: "x"}}}}}, {Name: "list"}}
}

// same holds a text against encoding/json: which texts are valid, which members they have,
// what strings mean, which elements a list has.
func same(t *testing.T, data []byte) {
	t.Helper()
	got := wanted()
	err := rawjson.Read(data, got)
	if (err == nil) != json.Valid(data) {
		t.Fatalf("%q: %v, and encoding/json says valid=%v", short(data), err, json.Valid(data))
	}
	if err == nil {
		sameMembers(t, data, got)
	}
}

func sameMembers(t *testing.T, data []byte, got []rawjson.Member) {
	t.Helper()
	var want map[string]json.RawMessage
	_ = json.Unmarshal(data, &want) // no object: no members
	for _, m := range got {
		if !bytes.Equal(m.Value, want[m.Name]) || (m.Value == nil) != (want[m.Name] == nil) {
			t.Fatalf("%q: %s is %q, want %q", short(data), m.Name, short(m.Value), short(want[m.Name]))
		}
		var s *string
		text, ok := rawjson.Text(m.Value)
		if m.Value != nil && json.Unmarshal(m.Value, &s) != nil {
			s = nil
		}
		if ok != (s != nil) || ok && text != *s {
			t.Fatalf("%q: %q, %v", short(m.Value), text, ok)
		}
		var list []json.RawMessage
		isList := len(m.Value) > 0 && json.Unmarshal(m.Value, &list) == nil && m.Value[0] == '['
		n := 0
		if all := rawjson.Elements(m.Value, func(e []byte) bool {
			if n >= len(list) || !bytes.Equal(e, list[n]) {
				t.Fatalf("%q: element %d is %q", short(m.Value), n, short(e))
			}
			n++
			return true
		}); all != isList || n != len(list) {
			t.Fatalf("%q: %d elements, all %v", short(m.Value), n, all)
		}
		sameMembers(t, m.Value, m.Members)
	}
}

func short(b []byte) []byte { return b[:min(len(b), 300)] }

var texts = []string{
	``, ` `, `{}`, `[]`, `null`, `true`, `false`, `tru`, `nul`, `nulll`, `"a"`, `0`, `-0`, `-`, `01`, `1.`, `1.5`, `.5`, `1e5`, `1E+5`, `1e`, `1e-`, `1e400`, `-1.5E-7`, `+1`, `0x1`, `NaN`,
	`123456789012345678901234567890`, `{"id":123456789012345678901234567890}`,
	`{"id":"a"}`, ` { "id" : "a" } `, "\t{\n\"id\"\r:1}\n", `{"id":"a",}`, `{,}`, `{"id"}`, `{"id":}`, `{"id" 1}`, `{id:1}`, `{'id':1}`, `{"id":1 "a":2}`, `{"id":1}{`, `{"id":1} x`, `[1,]`, `[,1]`, `[1 2]`, `[1`, `[`, `{`, `{"`, `"`, `"\`, `"\u12`,
	`{"id":"a","id":"b"}`, `{"id":"a","id":null}`, `{"i\u0064":"escaped name"}`, `{"\u0069\u0064":"b","id":"c"}`, `{"ID":"other case"}`, `{"id\u0000":1}`,
	`{"a":{"id":"inner"},"id":"outer"}`, `{"id":"outer","a":{"b":{"id":"deep","x":{"id":"deeper"}}}}`,
	`{"a":{"id":1,"b":{"id":2}},"a":{}}`, `{"a":{"id":1},"a":5}`, `{"a":[{"id":1}]}`, `{"a":"{\"id\":1}"}`, `{"a":{"b":{"id":1},"b":{"x":2}}}`,
	`{"x":{"id":"not wanted"},"a":{"x":{"id":"nor this"}}}`,
	`{"id":"\"quoted\" \\ \/ \b\f\n\r\t \u00e9 \ud83d\ude00 \ud83d"}`, `{"id":"é 😀"}`, "{\"id\":\"\xff\"}", "{\"id\":\"a\x00\"}", "{\"id\":\"a\nb\"}", "{\"id\":\"\x7f\"}", `{"id":"\x"}`, `{"id":"\u00zz"}`, `{"id":"\u00E9"}`, "{\"\xff\":1}",
	`{"list":[]}`, `{"list":[ ]}`, `{"list":[1, "a" ,{"id":[]},[[]],null]}`, `{"list":{"0":1}}`, "\ufeff{}", "{}\x00", "{\"id\":1}\v",
}

func TestReadsAsEncodingJSON(t *testing.T) {
	t.Parallel()
	for _, text := range texts {
		same(t, []byte(text))
	}
	for _, depth := range []int{9_998, 9_999, 10_000, 10_001} {
		same(t, []byte(strings.Repeat("[", depth)+strings.Repeat("]", depth)))
		same(t, []byte(strings.Repeat(`{"a":`, depth)+"1"+strings.Repeat("}", depth)))
		same(t, []byte(strings.Repeat(`[{"a":[],"b":`, depth/2)+"{}"+strings.Repeat("}]", depth/2)))
	}
	same(t, []byte(strings.Repeat("[", 1<<20)))
	same(t, []byte(`{"list":[`+strings.Repeat("[],", 20_000)+`{}]}`)) // deep is not long
}

func FuzzRead(f *testing.F) {
	for _, text := range texts {
		f.Add([]byte(text))
	}
	f.Fuzz(same)
}

// An element may end the walk.
func TestElementsEnd(t *testing.T) {
	t.Parallel()
	n := 0
	if all := rawjson.Elements([]byte(`[1,2,3]`), func([]byte) bool { n++; return n < 2 }); all || n != 2 {
		t.Errorf("%d elements, all %v", n, all)
	}
}
