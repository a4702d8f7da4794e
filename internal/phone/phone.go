// Package phone reads phone numbers as people and providers write them, and says
// which of them can be texted.
package phone

import (
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"unicode"

	"github.com/nyaruka/phonenumbers"
)

// A Number is a phone number in E.164: "+33639980102". It logs masked.
type Number string

// Digits is the number without its plus sign, as subjects and keys have it.
func (n Number) Digits() string { return strings.TrimPrefix(string(n), "+") }

// LogValue is the number masked.
func (n Number) LogValue() slog.Value { return slog.StringValue(Mask(string(n))) }

// The reasons why a number can't be texted, as contracts.Lead.PhoneIssue has them.
const (
	IssueMissing    = "missing"    // there is none
	IssueUnreadable = "unreadable" // it is no phone number
	IssueNotMobile  = "not_mobile" // a landline, a premium number, …
)

// ErrMissing and ErrUnreadable are what Parse returns.
var (
	ErrMissing    = errors.New("no phone number")
	ErrUnreadable = errors.New("not a phone number")
)

// frenchMobile are the numbers that French law sets aside for mobile phones. The
// library's metadata calls some of them invalid (070…, 0639 98…), though they exist.
var frenchMobile = regexp.MustCompile(`^\+33[67]\d{8}$`)

// Parse reads a number as typed; one without a prefix belongs to region, e.g. "FR". A
// number that is merely unusual is taken: only one that no phone can have is
// ErrUnreadable. A short code such as 36123 is not a phone number.
func Parse(s, region string) (Number, error) {
	s = strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.Cf, unicode.Cc) { // direction marks, zero-width space
			return -1
		}
		return r
	}, s)
	s = strings.TrimSpace(s)
	if s == "" {
		return "", ErrMissing
	}
	if len(s) > 64 || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsLetter(r) }) && !prefixed(s) {
		return "", ErrUnreadable
	}
	n, err := phonenumbers.Parse(s, region)
	if err != nil || !phonenumbers.IsPossibleNumber(n) {
		return "", ErrUnreadable
	}
	e164 := phonenumbers.Format(n, phonenumbers.E164)
	if len(e164) < 8 || len(e164) > 16 || e164[0] != '+' {
		return "", ErrUnreadable
	}
	return Number(e164), nil
}

// prefixed knows the letters that may stand before a number: those of Meta's exports,
// of URIs and of Twilio's channels.
func prefixed(s string) bool {
	for _, p := range []string{"p:", "tel:", "sms:", "whatsapp:"} {
		if len(s) > len(p) && strings.EqualFold(s[:len(p)], p) {
			return !strings.ContainsFunc(s[len(p):], unicode.IsLetter)
		}
	}
	return false
}

// Textable says whether a text can reach the number.
func (n Number) Textable() bool {
	if frenchMobile.MatchString(string(n)) {
		return true
	}
	p, err := phonenumbers.Parse(string(n), "")
	if err != nil || !phonenumbers.IsValidNumber(p) {
		return false
	}
	switch phonenumbers.GetNumberType(p) {
	case phonenumbers.MOBILE, phonenumbers.FIXED_LINE_OR_MOBILE:
		return true
	}
	return false
}

// Read is Parse and Textable in one: the number, or as typed what is none, and the
// issue that keeps it from being texted ("" if none).
func Read(s, region string) (number, issue string) {
	n, err := Parse(s, region)
	switch {
	case errors.Is(err, ErrMissing):
		return "", IssueMissing
	case err != nil:
		return strings.TrimSpace(s), IssueUnreadable
	case !n.Textable():
		return string(n), IssueNotMobile
	}
	return string(n), ""
}

// Mask cuts the middle out of a number, or of whatever stands in its place:
// "+33639980102" → "+336****0102".
func Mask(s string) string {
	r := []rune(s)
	if len(r) < 10 {
		return "****"
	}
	return string(r[:4]) + "****" + string(r[len(r)-4:])
}
