package phone_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"leadpipe/internal/phone"
)

func TestTextable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rule, in, region string
		want             phone.Number
		issue            error
	}{
		{"plain", "0639980102", "FR", "+33639980102", nil},
		{"spaces", " 06 39 98 01 02 ", "FR", "+33639980102", nil},
		{"dots", "06.39.98.01.02", "FR", "+33639980102", nil},
		{"dashes", "06-39-98-01-02", "FR", "+33639980102", nil},
		{"slashes", "06/39/98/01/02", "FR", "+33639980102", nil},
		{"dash of a word processor", "06–39–98–01–02", "FR", "+33639980102", nil},
		{"no-break spaces", "06\u00a039\u00a098\u202f01\u202f02", "FR", "+33639980102", nil},
		{"international", "+33639980102", "FR", "+33639980102", nil},
		{"international, another region", "+33639980102", "US", "+33639980102", nil},
		{"trunk zero in parentheses", "+33 (0)6 39 98 01 02", "FR", "+33639980102", nil},
		{"trunk zero left in", "+330639980102", "FR", "+33639980102", nil},
		{"two zeros for the plus", "0033 6 39 98 01 02", "FR", "+33639980102", nil},
		{"country code without a plus", "33639980102", "FR", "+33639980102", nil},
		{"no trunk zero", "639980102", "FR", "+33639980102", nil},
		{"prefix of Meta's exports", "p:+33639980102", "FR", "+33639980102", nil},
		{"tel link", "tel:+33-6-39-98-01-02", "FR", "+33639980102", nil},
		{"capital tel link", "TEL: 0639980102", "FR", "+33639980102", nil},
		{"WhatsApp sender", "whatsapp:+33639980102", "FR", "+33639980102", nil},
		{"marks of direction", "\u202a+33 6 39 98 01 02\u202c", "FR", "+33639980102", nil},
		{"mark of direction and scheme", "\u200ep:\u200e+33639980102", "FR", "+33639980102", nil},
		{"Arabic-Indic digits", "٠٦٣٩٩٨٠١٠٢", "FR", "+33639980102", nil},
		{"full-width digits and plus", "＋３３６３９９８０１０２", "FR", "+33639980102", nil},
		{"possible, not in the tables", "07 00 00 01 02", "FR", "+33700000102", nil},
		{"Belgian mobile", "+32 470 12 34 56", "FR", "+32470123456", nil},
		{"Réunion with its code", "+262 692 12 34 56", "FR", "+262692123456", nil},
		{"American, mobile or not", "+1 201 555 0123", "FR", "+12015550123", nil},
		{"of another default region", "0470 12 34 56", "BE", "+32470123456", nil},
		{"trailing pair of parentheses", "+33639980102()", "FR", "+33639980102", nil},

		{"zero-width space", "\u200b+33639980102", "FR", "+33639980102", nil},
		{"no tables know 0712", "0712345678", "FR", "+33712345678", nil},

		{"premium", "+33 899 70 12 34", "FR", "+33899701234", phone.NotMobile},
		{"mobile by its length, of no assigned range", "+32 400 00 00 00", "FR", "+32400000000", phone.NotMobile},
		{"landline", "01 99 00 12 34", "FR", "+33199001234", phone.NotMobile},
		{"voice over IP", "09 37 00 12 34", "FR", "+33937001234", phone.NotMobile},
		{"freephone", "0800 123 456", "FR", "+33800123456", phone.NotMobile},

		{"nothing", "", "FR", "", phone.Missing},
		{"blank", " \u00a0\u200e\t", "FR", "", phone.Missing},
		{"a scheme and nothing", "tel:", "FR", "", phone.Missing},
		{"words", "call me", "FR", "", phone.Unreadable},
		{"a letter for a digit", "06 39 98 01 0a", "FR", "", phone.Unreadable},
		{"letters of a keypad", "0800 FLOWERS", "FR", "", phone.Unreadable},
		{"two numbers", "0639980102 / 0639980103", "FR", "+33639980102", nil},
		{"a landline and a mobile", "01 99 00 12 34 ou 06 39 98 01 02", "FR", "+33639980102", nil},
		{"a landline and a mobile, a line each", "0199001234\n0639980102", "FR", "+33639980102", nil},
		{"two landlines", "0199001234;0199001235", "FR", "+33199001234", phone.NotMobile},
		{"two with dots", "01.99.00.12.34, 06.39.98.01.02", "FR", "+33639980102", nil},
		{"a word and a number", "portable ou 06 39 98 01 02", "FR", "+33639980102", nil},
		{"the code in brackets", "(+33)639980102", "FR", "+33639980102", nil},
		{"the code in brackets, spaced", " ( +33 ) 6 39 98 01 02", "FR", "+33639980102", nil},
		{"brackets behind the plus", "+(33) 6 39 98 01 02", "FR", "+33639980102", nil},
		{"two zeros in brackets", "(0033)639980102", "FR", "+33639980102", nil},
		{"RCS address", "rcs:+33639980102", "FR", "+33639980102", nil},
		{"an address of a kind to come", "x-new.thing:+33639980102", "FR", "+33639980102", nil},
		{"an id of something else", "messenger:639980102", "FR", "", phone.Unreadable},
		{"Guadeloupe as dialled there", "0690 12 34 56", "FR", "+590690123456", nil},
		{"Guadeloupe, the other range", "0691123456", "FR", "+590691123456", nil},
		{"Guadeloupe's range with the mainland's code is what it says", "+33 690 12 34 56", "FR", "+33690123456", nil},
		{"Guadeloupe without the zero", "690 12 34 56", "FR", "+590690123456", nil},
		{"Guadeloupe with its code", "+590690123456", "FR", "+590690123456", nil},
		{"Réunion as dialled there", "0692123456", "FR", "+262692123456", nil},
		{"Réunion, the other range", "0693123456", "FR", "+262693123456", nil},
		{"Réunion where it is at home", "0692123456", "RE", "+262692123456", nil},
		{"Guyane", "0694 123456", "FR", "+594694123456", nil},
		{"Martinique", "0696123456", "FR", "+596696123456", nil},
		{"Martinique, the other range", "0697123456", "FR", "+596697123456", nil},
		{"Mayotte", "0639123456", "FR", "+262639123456", nil},
		{"fiction, in the midst of Mayotte's range", "0639980102", "FR", "+33639980102", nil},
		{"a neighbour of these ranges", "0695123456", "FR", "+33695123456", nil},
		{"two numbers joined", "06399801020639980103", "FR", "", phone.Unreadable},
		{"too short", "06 39 98 01", "FR", "", phone.Unreadable},
		{"short code", "36123", "FR", "", phone.Unreadable},
		{"emergency", "112", "FR", "", phone.Unreadable},
		{"local part only", "555-0123", "US", "", phone.Unreadable},
		{"alphanumeric sender", "ACME", "FR", "", phone.Unreadable},
		{"test lead of Meta", "<test lead: dummy data for phone_number>", "FR", "", phone.Unreadable},
		{"no such country", "+999 123 456 789", "FR", "", phone.Unreadable},
		{"no region", "0639980102", "", "", phone.Unreadable},
		{"e-mail address", "camille@example.com", "FR", "", phone.Unreadable},
		{"another number when read again", "000000", "CC", "", phone.Unreadable},
		{"zeros", strings.Repeat("0", 1000), "FR", "", phone.Unreadable},
		{"long", strings.Repeat("0639980102", 1000), "FR", "", phone.Unreadable},
	} {
		t.Run(c.rule, func(t *testing.T) {
			t.Parallel()
			got, err := phone.Textable(c.in, c.region)
			if got != c.want || !errors.Is(err, c.issue) {
				t.Errorf("Textable(%q, %s) = %q, %v; want %q, %v", c.in, c.region, got, err, c.want, c.issue)
			}
			parsed, err := phone.Parse(c.in, c.region)
			if parsed != c.want || (err == nil) != (c.want != "") {
				t.Errorf("Parse(%q, %s) = %q, %v", c.in, c.region, parsed, err)
			}
		})
	}
}

func TestDigits(t *testing.T) {
	t.Parallel()
	if d := phone.Number("+33639980102").Digits(); d != "33639980102" {
		t.Errorf("got %s", d)
	}
}

func TestMask(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"+33612345678":       "+336****5678",
		" +33 6 12 34 56 78": "+336****5678",
		"33612345678":        "336****5678",
		"0612345678":         "****5678",
		"12345678":           "****5678",
		"1234567":            "****",
		"36123":              "****",
		"ACME":               "****",
		"":                   "****",
		"call +33612345678":  "336****5678",
	} {
		if got := phone.Mask(in); got != want {
			t.Errorf("Mask(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestMaskEmail(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"camille@example.com": "c****@example.com",
		"élise@example.com":   "é****@example.com",
		"\"a@b\"@example.com": "\"****@example.com",
		"@example.com":        "****",
		"camille":             "****",
		"":                    "****",
	} {
		if got := phone.MaskEmail(in); got != want {
			t.Errorf("MaskEmail(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestLogs shows which ways of printing a number mask it, and which do not.
func TestLogs(t *testing.T) {
	t.Parallel()
	n := phone.Number("+33639980102")
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("sent", "to", n)
	if s := out.String(); !strings.Contains(s, `"to":"+336****0102"`) {
		t.Errorf("the log line: %s", s)
	}
	if s := fmt.Sprintf("%s %v", n, n); s != "+33639980102 +33639980102" {
		t.Errorf("printed: %s", s)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"0639980102", "+33 (0)6 39 98 01 02", "p:+33639980102", "36123", "+54 9 11 1234 5678", "+52 1 55 1234 5678",
		"\u202a+33639980102\u202c", "+39 06 1234 5678", "555-0123", "tel:", "+", "0033", "٠٦٣٩٩٨٠١٠٢"} {
		f.Add(s, "FR")
		f.Add(s, "US")
	}
	f.Add("000000", "CC")
	f.Fuzz(func(t *testing.T, s, region string) {
		n, err := phone.Textable(s, region)
		if m := phone.Mask(s) + phone.MaskEmail(s); !strings.Contains(m, "****") {
			t.Fatalf("%q is not masked", s)
		}
		if errors.Is(err, phone.Missing) || errors.Is(err, phone.Unreadable) {
			if n != "" {
				t.Fatalf("%q beside %v", n, err)
			}
			return
		}
		d := n.Digits()
		if len(d) < 7 || len(d) > 15 || strings.Trim(d, "0123456789") != "" || d[0] == '0' || string(n) != "+"+d {
			t.Fatalf("%q is not E.164", n)
		}
		if again, err := phone.Parse(string(n), "FR"); again != n || err != nil {
			t.Fatalf("%q read again: %q, %v", n, again, err)
		}
		if strings.Contains(phone.Mask(string(n)), d) {
			t.Fatalf("%q is not masked", n)
		}
	})
}
