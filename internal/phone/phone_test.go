package phone_test

import (
	"bytes"
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"leadpipe/internal/phone"
)

func TestRead(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, number, issue string }{
		{"0639980102", "+33639980102", ""},
		{"06 39 98 01 02", "+33639980102", ""},
		{"06.39.98.01.02", "+33639980102", ""},
		{"06-39-98-01-02", "+33639980102", ""},
		{"06\u00a039\u00a098\u00a001\u00a002", "+33639980102", ""},
		{"+33 (0)6 39 98 01 02", "+33639980102", ""},
		{"0033639980102", "+33639980102", ""},
		{"33639980102", "+33639980102", ""},
		{"+330639980102", "+33639980102", ""},
		{"p:+33639980102", "+33639980102", ""},
		{"tel:+33639980102", "+33639980102", ""},
		{"whatsapp:+33639980102", "+33639980102", ""},
		{"\u202a+33639980102\u202c", "+33639980102", ""}, // copied from a contact card
		{"\u200b+33639980102", "+33639980102", ""},
		{"0700123456", "+33700123456", ""}, // possible, though the metadata say invalid
		{"0712345678", "+33712345678", ""},
		{"+32470123456", "+32470123456", ""},
		{"+14155550123", "+14155550123", ""},
		{"0145678901", "+33145678901", phone.IssueNotMobile},
		{"+33899701234", "+33899701234", phone.IssueNotMobile},
		{"", "", phone.IssueMissing},
		{"   ", "", phone.IssueMissing},
		{"36123", "36123", phone.IssueUnreadable}, // a short code
		{"bonjour", "bonjour", phone.IssueUnreadable},
		{"06 12 34 56 7a", "06 12 34 56 7a", phone.IssueUnreadable}, // the library would read a landline
		{"<test lead: dummy data for phone_number>", "<test lead: dummy data for phone_number>", phone.IssueUnreadable},
		{"0639980102 / 0639980103", "0639980102 / 0639980103", phone.IssueUnreadable},
		{strings.Repeat("0", 1000), strings.Repeat("0", 1000), phone.IssueUnreadable},
	} {
		number, issue := phone.Read(tt.in, "FR")
		if number != tt.number || issue != tt.issue {
			t.Errorf("%q: %q, %q; want %q, %q", tt.in, number, issue, tt.number, tt.issue)
		}
	}
}

func TestNumbersLogMasked(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "to", phone.Number("+33639980102"))
	if !strings.Contains(out.String(), "+336****0102") || strings.Contains(out.String(), "9980") {
		t.Error(out.String())
	}
	for _, short := range []string{"", "36123", "+336399"} {
		if got := phone.Mask(short); got != "****" {
			t.Errorf("%q is masked as %q", short, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"0639980102", "p:+33639980102", "+", "tel:", "\u202a+33", "٠٦٣٩٩٨٠١٠٢"} {
		f.Add(s)
	}
	e164 := regexp.MustCompile(`^\+[1-9]\d{6,14}$`)
	f.Fuzz(func(t *testing.T, s string) {
		n, err := phone.Parse(s, "FR")
		if err != nil {
			return
		}
		if !e164.MatchString(string(n)) {
			t.Fatalf("%q became %q", s, n)
		}
		n.Textable()
		if again, err := phone.Parse(string(n), "FR"); err == nil && again != n {
			t.Fatalf("%q became %q and then %q", s, n, again)
		}
	})
}
