// Package text renders the texts that we send, from templates that the operator may
// change. A template is tried out when the program starts, so that a misspelt field
// ends it there and not at the first message.
package text

import (
	"fmt"
	"io"
	"strings"
	"text/template"
	"unicode/utf8"
)

// MaxLength is the most characters that Twilio takes as one text (error 21617).
// https://www.twilio.com/docs/api/errors/21617
const MaxLength = 1600

// A Template makes texts of one kind. It is safe for concurrent use.
type Template struct {
	name string
	t    *template.Template
}

// Parse reads a Go text/template and renders every sample with it. The samples are
// the values that it must cope with, of the type that Render will be given. An error
// names the environment variable, name, and the place in the template.
func Parse(name, text string, samples ...any) (*Template, error) {
	// The library's messages quote the action at fault, which is the operator's own
	// writing and the quickest way to find it.
	parsed, err := template.New(name).Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: reading the template: %w", name, err)
	}
	t := &Template{name: name, t: parsed}
	for _, s := range samples {
		if err := parsed.Execute(io.Discard, s); err != nil {
			return nil, fmt.Errorf("%s: trying the template out: %w", name, err)
		}
		if _, err := t.Render(s); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// Render gives the text for data. It is an error if there is nothing in it, or more
// than MaxLength. No error says what is in the data.
func (t *Template) Render(data any) (string, error) {
	var b strings.Builder
	if err := t.t.Execute(&b, data); err != nil {
		return "", fmt.Errorf("%s: the template can't be applied", t.name)
	}
	out := strings.TrimSpace(b.String())
	if out == "" {
		return "", fmt.Errorf("%s: the template gives an empty text", t.name)
	}
	if n := utf8.RuneCountInString(out); n > MaxLength {
		return "", fmt.Errorf("%s: the template gives a text of %d characters; Twilio takes %d", t.name, n, MaxLength)
	}
	return out, nil
}
