// Package phone reads phone numbers as people type them and judges whether they can
// be texted. It also masks numbers and e-mail addresses for logs and errors.
package phone

import (
	"log/slog"
	"regexp"
	"strings"
	"unicode"

	"github.com/nyaruka/phonenumbers"
)

// A Number is a phone number in E.164: "+33612345678". It has no String method on
// purpose: records, forms and keys are made of it, so that whatever prints a Number
// prints it whole. Log it as an attribute (LogValue masks it); errors take Mask.
type Number string

// Digits is the number without its plus sign, as subjects and keys have it.
func (n Number) Digits() string { return strings.TrimPrefix(string(n), "+") }

// LogValue is the number masked: +336****5678.
func (n Number) LogValue() slog.Value { return slog.StringValue(Mask(string(n))) }

// An Issue is why a number can't be texted. As an error it compares with errors.Is,
// and its text is what contracts.Lead.PhoneIssue holds; it never repeats the number.
type Issue string

// The issues.
const (
	Missing    Issue = "missing"    // nothing was typed
	Unreadable Issue = "unreadable" // not a number, or of an impossible length
	NotMobile  Issue = "not_mobile" // a number, but not one that takes texts
)

func (i Issue) Error() string { return string(i) }

// typed is what a number may consist of once marks and a scheme have been taken off.
// Letters are refused: the library drops some of them, or dials them as on a keypad,
// and "06 12 34 56 7a" would become somebody else's number.
var typed = regexp.MustCompile(`^\+?[\p{Nd}\pZ\t().\-/\p{Pd}]+$`)

// e164 is at least seven digits, so that a short code such as 36123 is no number.
var e164 = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)

// scheme is what may stand before a number in exports, links and Twilio's addresses:
// "p:", "tel:", "whatsapp:", "rcs:", and whatever comes next. The number is the same. Of
// a scheme that we do not know, "messenger:100…", only what begins with a plus is one.
var scheme = regexp.MustCompile(`(?i)^(?:(?:p|tel|sms|whatsapp|rcs):\s*|[a-z][a-z0-9+.-]*:\s*(\+|＋|$))`)

// bracketed is a country's prefix in brackets: "(+33)6…", "+(33)6…", "(0033)6…".
var bracketed = regexp.MustCompile(`^\s*(?:\(\s*(?:\+|00)\s*|\+\s*\()\s*([1-9]\d{0,2})\s*\)`)

// apart is what stands between two numbers in one field.
var apart = regexp.MustCompile(`(?i)\s*[/;,|\n\r]+\s*|\s+(?:ou|or|et|and|puis)\s+|\s+-\s+`)

// Parse reads a number; one without a country's prefix belongs to region ("FR"). Of
// several in one field it is the first that can be texted, else the first.
// The error is Missing or Unreadable. A number that is possible is read even if the
// tables of assigned numbers do not know it, for they lag: they refuse 07 0x and the
// range kept for fiction, 06 39 98 xx xx.
func Parse(s, region string) (Number, error) {
	if plain(s) {
		return Number(s), nil
	}
	s = strings.Map(visible, s)
	if strings.TrimSpace(scheme.ReplaceAllString(strings.TrimSpace(s), "$1")) == "" {
		return "", Missing
	}
	if n, err := parse(s, region); err == nil || len(s) > longest {
		return n, err
	}
	first := Number("")
	for _, part := range apart.Split(s, mostNumbers) {
		n, err := parse(part, region)
		switch {
		case err != nil:
		case n.Mobile():
			return n, nil
		case first == "":
			first = n
		}
	}
	if first == "" {
		return "", Unreadable
	}
	return first, nil
}

// plain says whether s is a French mobile number as Twilio and Meta write it, which is
// what the tables would make of it, too, after a hundred allocations.
func plain(s string) bool {
	if len(s) != len("+33612345678") || s[:3] != "+33" || s[3] != '6' && s[3] != '7' {
		return false
	}
	for _, c := range []byte(s[4:]) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

const (
	longest     = 200 // of a field in which several numbers are looked for
	mostNumbers = 8
)

// parse reads one number.
func parse(s, region string) (Number, error) {
	s = strings.TrimSpace(strings.ReplaceAll(s, "\n", " "))
	s = strings.TrimSpace(scheme.ReplaceAllString(s, "$1"))
	s = bracketed.ReplaceAllString(s, "+$1 ")
	if !typed.MatchString(s) {
		return "", Unreadable
	}
	n, ok := read(s, region)
	if !ok {
		return "", Unreadable
	}
	if national(s) {
		n = overseas(n)
	}
	// The library reads "000000" as +61000000, and that as +6100000. A number that is
	// another one when read again would be kept under two keys.
	if again, ok := read(n, region); !ok || again != n {
		return "", Unreadable
	}
	return Number(n), nil
}

// The mobile ranges of the French departments overseas, which have codes of their own.
// People type them as they dial them at home: 0690 and so on.
// https://www.arcep.fr/la-regulation/grands-dossiers-thematiques-transverses/la-numerotation.html
var ranges = map[string]string{
	"690": "590", "691": "590", // Guadeloupe
	"692": "262", "693": "262", // La Réunion
	"694": "594",               // Guyane
	"696": "596", "697": "596", // Martinique
	"639": "262", // Mayotte
}

// fiction is the range that is kept for films and examples, in the midst of Mayotte's.
const fiction = "+3363998"

// national says whether a number was typed without a country's code: ten digits that
// begin with zero, or nine. With the code a French one has eleven.
func national(s string) bool {
	n := 0
	for _, r := range s {
		if unicode.IsDigit(r) {
			n++
		}
	}
	return n == 10 || n == 9
}

// overseas gives a number of those ranges its own country code.
func overseas(n string) string {
	if !strings.HasPrefix(n, "+33") || len(n) != 12 || strings.HasPrefix(n, fiction) {
		return n
	}
	if code, ok := ranges[n[3:6]]; ok {
		return "+" + code + n[3:]
	}
	return n
}

// read gives a number in E.164; false: it is none.
func read(s, region string) (string, bool) {
	n, err := phonenumbers.Parse(s, region)
	if err != nil || phonenumbers.IsPossibleNumberWithReason(n) != phonenumbers.IS_POSSIBLE {
		return "", false
	}
	out := phonenumbers.Format(n, phonenumbers.E164)
	return out, e164.MatchString(out)
}

// visible drops what copying from an address book leaves around a number (marks of
// direction, zero-width spaces), and makes every space and plus sign a plain one.
func visible(r rune) rune {
	switch {
	case unicode.Is(unicode.Cf, r):
		return -1
	case r == '\n' || r == '\r':
		return '\n'
	case unicode.IsSpace(r):
		return ' '
	case r == '＋':
		return '+'
	}
	return r
}

// frenchMobile is by range and not by the tables, for the reason given at Parse.
var frenchMobile = regexp.MustCompile(`^\+(?:33[67][0-9]{8}|590(?:690|691)[0-9]{6}|262(?:692|693|639)[0-9]{6}|594694[0-9]{6}|596(?:696|697)[0-9]{6})$`)

// Mobile says whether a number takes texts, as far as its digits tell: a French 06 or
// 07, or elsewhere a valid number that is, or may be, a mobile's.
func (n Number) Mobile() bool {
	if frenchMobile.MatchString(string(n)) {
		return true
	}
	p, err := phonenumbers.Parse(string(n), "")
	if err != nil {
		return false
	}
	kind := phonenumbers.GetNumberType(p) // of an invalid number: unknown
	return kind == phonenumbers.MOBILE || kind == phonenumbers.FIXED_LINE_OR_MOBILE
}

// Country is the number's country as ISO 3166 has it, "FR"; "XX" where none is known.
func (n Number) Country() string {
	p, err := phonenumbers.Parse(string(n), "")
	if err != nil {
		return "XX"
	}
	if code := phonenumbers.GetRegionCodeForNumber(p); len(code) == 2 && code != "ZZ" {
		return code
	}
	if code := phonenumbers.GetRegionCodeForCountryCode(int(p.GetCountryCode())); len(code) == 2 && code != "ZZ" {
		return code
	}
	return "XX"
}

// Textable reads a number that is to be texted: Parse, and NotMobile for a number
// that takes no texts, which is given beside the error. nil: it can be texted.
func Textable(s, region string) (Number, error) {
	n, err := Parse(s, region)
	if err == nil && !n.Mobile() {
		return n, NotMobile
	}
	return n, err
}

// Region says whether there are phone numbers of a region: "FR", "DE", …
func Region(code string) bool { return phonenumbers.GetSupportedRegions()[code] }

// Mask is a phone number fit for a log line or an error: +336****5678. At least four
// digits are hidden; of a text with fewer than eight digits nothing is shown.
func Mask(s string) string {
	var digits []rune
	for _, r := range s {
		if r >= '0' && r <= '9' {
			digits = append(digits, r)
		}
	}
	plus := ""
	if strings.HasPrefix(strings.TrimSpace(s), "+") {
		plus = "+"
	}
	switch n := len(digits); {
	case n < 8:
		return "****"
	case n < 11:
		return "****" + string(digits[n-4:])
	default:
		return plus + string(digits[:3]) + "****" + string(digits[n-4:])
	}
}

// MaskEmail is an e-mail address fit for a log line or an error: c****@example.com.
// What is not an address is hidden whole.
func MaskEmail(s string) string {
	s = strings.TrimSpace(s)
	at := strings.LastIndexByte(s, '@')
	if at < 1 {
		return "****"
	}
	for _, first := range s[:at] {
		return string(first) + "****" + s[at:]
	}
	return "****"
}
