package daemon

import (
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
)

// NewLogger logs JSON lines. Whatever a line holds, a phone number, an e-mail address
// or a credential in it is cut: code that logs should not need to remember, and an
// error text of a provider may repeat what it was sent.
func NewLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		switch a.Value.Kind() {
		case slog.KindString:
			return slog.String(a.Key, Redact(a.Value.String()))
		case slog.KindAny:
			return slog.String(a.Key, Redact(fmt.Sprintf("%+v", a.Value.Any())))
		}
		return a
	}}))
}

var (
	numbers = regexp.MustCompile(`\+\d{7,15}|%2B\d{7,15}`)
	// The last part of subjects and keys that name a phone.
	digits   = regexp.MustCompile(`\b((?:inbound|optout|contact|optout_confirmation)\.)(\d{3})\d{4,12}`)
	userinfo = regexp.MustCompile(`://[^/\s"@]+@`)
	emails   = regexp.MustCompile(`[^\s"'<>@:=,;]+@[^\s"'<>@:=,;]+\.[A-Za-z]{2,}`)
	tokens   = regexp.MustCompile(`\b(?:whsec_|sk_live_|sk_test_|rk_live_|rk_test_|EAA)[A-Za-z0-9_]+|(?i:bearer|basic) [A-Za-z0-9._~+/=-]{8,}|(?i:access_token|appsecret_proof|verify_token)=[^&\s"]+`)
)

// Redact cuts phone numbers (+336****5678), e-mail addresses and credentials out of a text.
func Redact(s string) string {
	s = tokens.ReplaceAllString(s, "<secret>")
	if strings.Contains(s, "@") {
		s = userinfo.ReplaceAllString(s, "://")
		s = emails.ReplaceAllStringFunc(s, func(e string) string { return e[:1] + "****" + e[strings.LastIndexByte(e, '@'):] })
	}
	s = numbers.ReplaceAllStringFunc(s, func(n string) string { return n[:4] + "****" + n[len(n)-4:] })
	return digits.ReplaceAllString(s, "${1}${2}****")
}
