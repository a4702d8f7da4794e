package twilio

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
)

// sameForm holds a body against net/url and encoding/json: which bodies can be read, what
// their fields are, and how they are written as JSON.
func sameForm(t *testing.T, body string) {
	t.Helper()
	values, err := url.ParseQuery(body)
	f, ok := parse(body)
	if ok != (err == nil) {
		t.Fatalf("%.300q: %v, and net/url says %v", body, ok, err)
	}
	if !ok {
		return
	}
	want := map[string]string{}
	for k, vs := range values {
		want[k] = vs[0]
	}
	sameJSON(t, f, want)
	for name, value := range want {
		if got := f.get(name); got != value {
			t.Fatalf("%.300q: %q is %q, want %q", body, name, got, value)
		}
	}
	want["sms"] = "ours"
	sameJSON(t, f.with("sms", "ours"), want)
}

func sameJSON(t *testing.T, f form, want map[string]string) {
	t.Helper()
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if got := f.json(); !bytes.Equal(got, text) {
		t.Fatalf("%.500q\nwant %.500q", got, text)
	}
}

var forms = []string{
	"", "a=1", "a", "=1", "=", "&", "&&a=1&", "a=1&b=2&a=3", "b=1&a=2", "a=1;b=2", "a=%zz", "%zz=a", "a=%", "a=+b+%20c", "sms=theirs&smt=1&sm=2",
	"a=%22%5C%3C%3E%26%0A%00%7F%e2%80%a8%ff", "%C3%A9=%F0%9F%98%80", "a=b=c", "a%3Bb=1", strings.Repeat("a&", 9_999) + "a", strings.Repeat("a&", 10_000) + "a",
}

func TestFormIsReadAsNetURLDoes(t *testing.T) {
	t.Parallel()
	for _, body := range forms {
		sameForm(t, body)
	}
	for c := range 256 {
		sameForm(t, "a="+url.QueryEscape(string([]byte{'x', byte(c), 'y'})))
	}
}

func FuzzForm(f *testing.F) {
	for _, body := range forms[:len(forms)-2] {
		f.Add(body)
	}
	f.Fuzz(sameForm)
}
