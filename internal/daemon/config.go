package daemon

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"reflect"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kelseyhightower/envconfig"

	"leadpipe/internal/phone"
)

// A Secret prints as "<set>" or "<unset>", whichever verb prints it.
type Secret string

func (s Secret) String() string {
	if s == "" {
		return "<unset>"
	}
	return "<set>"
}

// GoString is String.
func (s Secret) GoString() string { return s.String() }

// MarshalText is String, so that no encoder shows more.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Secrets are several, comma-separated in the environment: the first one signs or
// sends, all verify.
type Secrets []Secret

// Decode splits at commas; empty parts do not count, and one has to be there.
func (s *Secrets) Decode(value string) error {
	*s = nil
	for _, part := range strings.Split(value, ",") {
		if part = strings.TrimSpace(part); part != "" {
			*s = append(*s, Secret(part))
		}
	}
	if len(*s) == 0 {
		return errors.New("only commas") // set by mistake, and a provider would be off
	}
	return nil
}

func (s Secrets) String() string {
	if len(s) == 0 {
		return "<unset>"
	}
	return fmt.Sprintf("<%d set>", len(s))
}

// GoString is String.
func (s Secrets) GoString() string { return s.String() }

// First is the one that signs or sends; "" if there is none.
func (s Secrets) First() string {
	if len(s) == 0 {
		return ""
	}
	return string(s[0])
}

// Strings gives the secrets themselves.
func (s Secrets) Strings() []string {
	out := make([]string, len(s))
	for i := range s {
		out[i] = string(s[i])
	}
	return out
}

// A variable is one field of a configuration: `envconfig:"NAME" default:"…" desc:"…"`,
// and `empty:"off"` where set to nothing it has a meaning of its own.
type variable struct {
	name, def, desc string
	empty           string // what it means to set it to nothing; "": as if it were unset
	value           reflect.Value
}

// variables lists the fields of a configuration, those of embedded structs too, and
// without those that the environment does not set.
func variables(cfg reflect.Value) []variable {
	var out []variable
	for i := range cfg.NumField() {
		f := cfg.Type().Field(i)
		if f.Tag.Get("ignored") == "true" { // envconfig's word for a field that no variable sets
			continue
		}
		if f.Anonymous {
			out = append(out, variables(cfg.Field(i))...)
			continue
		}
		out = append(out, variable{f.Tag.Get("envconfig"), f.Tag.Get("default"), f.Tag.Get("desc"), f.Tag.Get("empty"), cfg.Field(i)})
	}
	return out
}

// Defaults is a configuration in which every variable has its default, whatever the
// environment says.
func Defaults[C any]() (C, error) {
	var cfg C
	for _, v := range variables(reflect.ValueOf(&cfg).Elem()) {
		if v.def == "" {
			continue
		}
		var err error
		switch v.value.Interface().(type) {
		case string:
			v.value.SetString(v.def)
		case time.Duration:
			var d time.Duration
			d, err = time.ParseDuration(v.def)
			v.value.SetInt(int64(d))
		case int:
			var n int
			n, err = strconv.Atoi(v.def)
			v.value.SetInt(int64(n))
		case bool:
			var b bool
			b, err = strconv.ParseBool(v.def)
			v.value.SetBool(b)
		default:
			err = fmt.Errorf("a %s has no default", v.value.Type())
		}
		if err != nil {
			return cfg, fmt.Errorf("%s: default %q: %w", v.name, v.def, err)
		}
	}
	return cfg, nil
}

// Load reads a configuration from the environment. A variable that is set and empty
// counts as unset, but for one with a tag `empty`. An error names the variable, never its value; a configuration
// that has a method Validate() error is asked too.
func Load[C any]() (C, error) {
	var cfg C
	for _, v := range variables(reflect.ValueOf(cfg)) {
		if value, set := os.LookupEnv(v.name); set && strings.TrimSpace(value) == "" && v.empty == "" {
			if err := os.Unsetenv(v.name); err != nil {
				return cfg, fmt.Errorf("%s: %w", v.name, err)
			}
		}
	}
	if err := envconfig.Process("", &cfg); err != nil {
		var parse *envconfig.ParseError
		if !errors.As(err, &parse) {
			return cfg, err
		}
		return cfg, fmt.Errorf("%s: not %s", parse.KeyName, describe(parse.TypeName))
	}
	if v, ok := any(cfg).(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			return cfg, err
		}
	}
	return cfg, nil
}

// Usage prints every variable with its type, default and meaning.
func Usage[C any](w io.Writer, about string) error {
	var cfg C
	_, _ = fmt.Fprintf(w, "%s\n\nConfiguration is by environment only:\n\n", about)
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "VARIABLE\tTYPE\tDEFAULT\tMEANING")
	for _, v := range variables(reflect.ValueOf(cfg)) {
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", v.name, typeName(v.value.Type()), v.def, v.desc)
	}
	return tw.Flush()
}

// Effective is the configuration as it applies, for one log line at the start.
func Effective(cfg any) []any {
	var out []any
	for _, v := range variables(reflect.ValueOf(cfg)) {
		shown := fmt.Sprint(v.value.Interface())
		if strings.Contains(shown, "://") {
			parts := strings.Split(shown, ",")
			for i, p := range parts {
				if u, err := url.Parse(p); err == nil {
					parts[i] = u.Redacted()
				} else {
					parts[i] = "<unreadable>"
				}
			}
			shown = strings.Join(parts, ",")
		}
		out = append(out, v.name, shown)
	}
	return out
}

func typeName(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[Secret]():
		return "secret"
	case reflect.TypeFor[Secrets]():
		return "secrets, comma-separated"
	case reflect.TypeFor[time.Duration]():
		return "duration"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "integer"
	}
	return "text"
}

// describe says what a type's values look like.
func describe(typeName string) string {
	switch typeName {
	case "time.Duration", "Duration":
		return "a duration such as 90s, 5m or 48h"
	case "int", "int64", "uint":
		return "a whole number"
	case "bool":
		return "true or false"
	case "daemon.Secrets", "Secrets":
		return "one secret or several, comma-separated"
	}
	return "a valid " + typeName
}

// URL checks that a variable holds an http or https URL without query or fragment.
func URL(name, value string) error {
	u, err := url.Parse(value)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%s: not a URL such as https://hooks.example.com", name)
	}
	return nil
}

// Positive checks a duration.
func Positive(name string, d time.Duration) error {
	if d <= 0 {
		return fmt.Errorf("%s: must be more than zero, e.g. 5m", name)
	}
	return nil
}

// Region checks an ISO 3166 region code such as FR.
func Region(name, code string) error {
	if !phone.Region(code) {
		return fmt.Errorf("%s: not a region of two capital letters such as FR", name)
	}
	return nil
}
