package sheets

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/auth"
	"google.golang.org/api/googleapi"

	"leadpipe/internal/outcome"
)

// classify says what an answer means for the work behind it:
//
//	400, 413, other 4xx   permanent, refused: the request itself is at fault
//	401, 403              blocked, auth: the key, or the sheet is not shared with it
//	404                   blocked, unknown: no such spreadsheet
//	403 of a quota, 429   temporary, rate_limited, after Retry-After
//	408, 409, 5xx         temporary, unavailable
//	no token, 4xx         blocked, auth
//	no answer             temporary, timeout or unavailable
//
// What Google says to a 400 may quote a cell, so whatever looks like a number or an
// address of a person is taken out of it.
func classify(doing string, err error, now time.Time) error {
	if err == nil {
		return nil
	}
	var done *outcome.Error
	if errors.As(err, &done) {
		return err
	}
	var g *googleapi.Error
	if errors.As(err, &g) {
		return classifyStatus(doing, g, now)
	}
	var token *auth.Error // no token, hence no call
	if errors.As(err, &token) && token.Response != nil && token.Response.StatusCode < 500 && !token.Temporary() {
		return outcome.Blocked(outcome.Auth, fmt.Errorf("%s: the service account gets no token: status %d", doing, token.Response.StatusCode))
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return outcome.Temporary(outcome.Timeout, fmt.Errorf("%s: %w", doing, err))
	}
	return outcome.Temporary(outcome.Unavailable, fmt.Errorf("%s: %w", doing, err))
}

func classifyStatus(doing string, g *googleapi.Error, now time.Time) error {
	said := fmt.Errorf("%s: answered %d: %s", doing, g.Code, g.Message)
	quiet := fmt.Errorf("%s: answered %d", doing, g.Code)
	switch {
	case g.Code == http.StatusTooManyRequests, g.Code == http.StatusForbidden && strings.Contains(strings.ToLower(g.Body), "ratelimitexceeded"):
		return outcome.Retry(outcome.RateLimited, retryAfter(g.Header, now), quiet)
	case g.Code == http.StatusUnauthorized, g.Code == http.StatusForbidden:
		return outcome.Blocked(outcome.Auth, said)
	case g.Code == http.StatusNotFound:
		return outcome.Blocked(outcome.Unknown, said)
	case g.Code == http.StatusRequestTimeout, g.Code == http.StatusConflict, g.Code >= 500:
		return outcome.Temporary(outcome.Unavailable, quiet)
	}
	return outcome.Permanent(outcome.Refused, &refusal{doing: doing, status: g.Code, words: public(g.Message)})
}

// A refusal is a request that Google understood and turned down, with its own words.
type refusal struct {
	doing  string
	status int
	words  string
}

func (r *refusal) Error() string {
	return strings.TrimSuffix(fmt.Sprintf("%s: answered %d: %s", r.doing, r.status, r.words), ": ")
}

// words are what Google said to a request that it turned down; "" for other errors.
func words(err error) string {
	var r *refusal
	if errors.As(err, &r) {
		return r.words
	}
	return ""
}

var personal = regexp.MustCompile(`[^\s"'<>]+@[^\s"'<>]+|\+[0-9][0-9 .-]{6,}[0-9]|\b0[0-9][0-9 .-]{6,}[0-9]|[0-9]{9,}`)

// public takes out of a text what may be about a person.
func public(s string) string {
	return personal.ReplaceAllString(strings.Join(strings.Fields(s), " "), "…")
}

// retryAfter reads the header in both of its forms; 0 where it is missing.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if s, err := strconv.Atoi(v); err == nil {
		return max(0, time.Duration(s)*time.Second)
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}
