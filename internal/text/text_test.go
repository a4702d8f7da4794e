package text_test

import (
	"strings"
	"testing"

	"leadpipe/internal/text"
)

type person struct {
	Name  string
	Words []string
}

func TestParseTriesTheSamples(t *testing.T) {
	t.Parallel()
	sample := []any{person{Name: "Zoé", Words: []string{"a"}}, person{}}
	for name, c := range map[string]struct{ text, complaint string }{
		"sound":                  {"Bonjour{{with .Name}} {{.}}{{end}} !", ""},
		"not a template":         {"Bonjour {{.Name", "unclosed action"},
		"unknown function":       {"{{shout .Name}}", `"shout" not defined`},
		"unknown field":          {"Bonjour {{.Nmae}}", "<.Nmae>"},
		"one sample is too much": {"{{index .Words 0}}", "index"},
		"nothing at all":         {"", "empty text"},
		"nothing for one":        {"{{.Name}}  \n", "empty text"},
		"1600 characters":        {strings.Repeat("é", 1600), ""},
		"too long":               {strings.Repeat("é", 1601), "1601 characters"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := text.Parse("SMS_X_TEXT", c.text, sample...)
			switch {
			case c.complaint == "" && err != nil:
				t.Fatal(err)
			case c.complaint != "" && err == nil:
				t.Fatal("taken")
			case err == nil:
				return
			}
			if !strings.HasPrefix(err.Error(), "SMS_X_TEXT: ") || !strings.Contains(err.Error(), c.complaint) {
				t.Errorf("the complaint: %v", err)
			}
		})
	}
}

func TestRender(t *testing.T) {
	t.Parallel()
	tmpl, err := text.Parse("SMS_X_TEXT", "\n{{.Name}} <&> {{index .Words 0}}\n", person{Name: "x", Words: []string{"y"}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tmpl.Render(person{Name: "Zoé's", Words: []string{"🛠"}}); err != nil || got != "Zoé's <&> 🛠" {
		t.Errorf("%q, %v", got, err)
	}
	for name, p := range map[string]person{"fails": {Name: "+33639980102"}, "too long": {Name: "+33639980102", Words: []string{strings.Repeat("secret", 300)}}} {
		if _, err := tmpl.Render(p); err == nil || strings.Contains(err.Error(), "+336") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
