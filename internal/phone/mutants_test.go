package phone_test

import (
	"strings"
	"testing"

	"leadpipe/internal/phone"
)

// Countries are those of the numbering plans, of which some share a code.
// https://www.itu.int/pub/T-SP-E.164D
func TestCountry(t *testing.T) {
	t.Parallel()
	for number, want := range map[phone.Number]string{
		"+33142000000":  "FR",
		"+33639980102":  "FR", // the range for fiction, which no table knows
		"+14165550123":  "CA", // shares 1 with the United States
		"+12125550123":  "US",
		"+447700900123": "GB",
		"+590690001234": "GP",
		"+80012345678":  "XX", // freephone, of no country
		"+99912345678":  "XX", // not assigned
		"no number":     "XX",
		"":              "XX",
	} {
		if got := number.Country(); got != want {
			t.Errorf("%q is of %q, want %q", number, got, want)
		}
	}
	if !phone.Region("FR") || !phone.Region("DE") || phone.Region("ZZ") || phone.Region("fr") || phone.Region("") {
		t.Error("regions")
	}
}

func TestNotMobile(t *testing.T) {
	t.Parallel()
	for number, want := range map[phone.Number]bool{"+33639980102": true, "+33142000000": false, "no number": false, "": false, "+12125550123": true} {
		if number.Mobile() != want {
			t.Errorf("%q: mobile %v", number, !want)
		}
	}
}

// A number of a department overseas that is typed as at home gets its code; one that says
// its country keeps it.
// https://www.arcep.fr/la-regulation/grands-dossiers-thematiques-transverses/la-numerotation.html
func TestOverseas(t *testing.T) {
	t.Parallel()
	for typed, want := range map[string]string{
		"0690 00 12 34": "+590690001234", "690001234": "+590690001234", "06 92 00 12 34": "+262692001234", "0694 00 12 34": "+594694001234",
		"0697001234": "+596697001234", "0639001234": "+262639001234", "06 39 98 01 02": "+33639980102",
		"+33 6 90 00 12 34": "+33690001234", "0033690001234": "+33690001234", "+33 (0)690001234": "+33690001234",
		"33690001234": "+33690001234", "+590690001234": "+590690001234", "0612345678": "+33612345678",
	} {
		if n, err := phone.Parse(typed, "FR"); err != nil || string(n) != want {
			t.Errorf("%q is %q, %v, want %q", typed, n, err, want)
		}
	}
	// Ten digits of another country are not French.
	if n, err := phone.Parse("0690 001 234", "CH"); err == nil && strings.HasPrefix(string(n), "+590") {
		t.Error(n)
	}
}

func TestSeveralNumbersInOneField(t *testing.T) {
	t.Parallel()
	for typed, want := range map[string]string{
		"01 42 00 00 00\r06 39 98 01 02":                                "+33639980102",
		"01 42 00 00 00\n06 39 98 01 02":                                "+33639980102",
		"06 39 98\n01 02":                                               "+33639980102",
		strings.Repeat(" ", 250-20) + "01 42 00 00 00 / 06 39 98 01 02": "", // too long to be looked through
	} {
		n, err := phone.Parse(typed, "FR")
		if string(n) != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v, want %q", typed, n, err, want)
		}
	}
	exactly := "01 42 00 00 00 / 06 39 98 01 02"
	exactly += strings.Repeat(" ", 200-len(exactly))
	if n, _ := phone.Parse(exactly, "FR"); n != "+33639980102" {
		t.Errorf("200 bytes: %q", n)
	}
}

// Errors are texts for people.
func TestWhatIsWrongIsSaid(t *testing.T) {
	t.Parallel()
	for _, typed := range []string{"", "call me", "01 42 00 00 00"} {
		if _, err := phone.Textable(typed, "FR"); err == nil || err.Error() == "" {
			t.Errorf("%q: %v", typed, err)
		}
	}
	for typed, want := range map[string]string{" camille@example.com ": "c****@example.com", "@example.com": "****", "c@example.com": "c****@example.com", "": "****"} {
		if got := phone.MaskEmail(typed); got != want {
			t.Errorf("%q is shown as %q", typed, got)
		}
	}
}
